"""What goes wrong outside: full and read-only disks, work of another version, two at once.

Each is done for real.  The message is clear, nothing that was finished is lost,
nothing is mixed, and the same command ends as if nothing had been.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.schema import SCHEMA, scratch_folders
from tests.soak import Soak, Words, Zygote, left


def _fails(soak: Soak, words: Words, *says: str, largest: int = 0, code: int = 1) -> None:
    log = soak.folder / "log"
    ended = soak.zygote.run(words, log, largest=largest)
    said = log.read_text()
    assert "Traceback" not in said
    assert ended == code, said
    for words_ in says:
        assert words_ in said, said


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("crop zarr", 1_000_000),  # no unit has room
        ("crop hdf5", 7_000_000),  # each unit has, the one file of the store has not
        ("extract with crops zarr", 500_000),
        ("extract hdf5", 2_000_000),
        ("finalize hdf5", 2_000_000),
        ("convert to zarr", 100_000),
        ("convert to hdf5", 2_000_000),
        ("train on zarr", 200_000),
    ],
)
def test_a_full_disk(soak: Soak, name: str, largest: int) -> None:
    """A limit on the size of a file fails a write as a full disk does: in the middle of it."""
    case = soak.undisturbed(name)
    with soak.fresh(case) as folder:
        _fails(soak, case.words(folder), "make room and run it again", largest=largest)
        assert not list(folder.rglob("manifest.json")) or "with crops" in name
        soak.must(*case.words(folder))
        assert left(folder) == case.whole


def test_an_overwrite_on_a_full_disk_is_no_success(soak: Soak) -> None:
    """A damaged cache, made again where there is no room: it must not pass for the new one."""
    case = soak.undisturbed("crop hdf5")
    with soak.fresh(case) as folder:
        words = case.words(folder)
        soak.must(*words)
        data = folder / "c" / "data.h5"
        data.write_bytes(data.read_bytes()[:-1] + b"x")
        overwrite = (*words, "--overwrite")
        _fails(soak, overwrite, "make room and run it again", largest=7_000_000)
        soak.must(*overwrite)
        assert left(folder) == case.whole


@pytest.fixture(scope="module")
def namespace() -> Iterator[Zygote]:
    """Commands that see a file system of their own, which may be mounted at will."""
    if shutil.which("unshare") is None or subprocess.call(["unshare", "-rm", "true"]) != 0:
        pytest.skip("no right to make a namespace in which to mount a small disk")
    with Zygote("unshare", "-rm") as zygote:
        yield zygote


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_disk_that_is_full_then_read_only_then_large(
    soak: Soak, namespace: Zygote, tmp_path: Path, store: str
) -> None:
    case = soak.undisturbed(f"crop {store}")
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()

    def mount(options: str) -> None:
        assert namespace.shell("mount", "-t", "tmpfs", "-o", options, "none", str(disk)) == 0

    def run(*words: object) -> tuple[int, str]:
        code = namespace.run(words, log)
        assert "Traceback" not in log.read_text()
        return code, log.read_text()

    try:
        for size in ("8m", "20m"):  # of 15 MB of parts one fits; all fit, the store does not
            mount(f"remount,size={size}" if size != "8m" else f"size={size}")
            code, said = run(*case.words(disk))
            assert (code, "make room and run it again" in said) == (1, True), said
        mount("remount,ro,size=100m")
        code, said = run(*case.words(disk))
        assert (code, "Read-only" in said) == (2, True), said
        mount("remount,rw")
        code, said = run(*case.words(disk))
        assert (code, "made by an earlier run  5500" in said) == (0, True), said
        code, said = run("cache", "info", disk / "c", "--json")
        found = json.loads(said)
        whole = case.whole["c/manifest.json"]
        assert isinstance(whole, dict)
        assert (found["content"], found["store"]) == (whole["content"], store)
        assert run("cache", "verify", disk / "c")[0] == 0
        assert namespace.shell("sh", "-c", f'test "$(ls -A "{disk}")" = c') == 0
    finally:
        namespace.shell("umount", str(disk))


def test_work_of_another_version_is_neither_used_nor_deleted(soak: Soak) -> None:
    case = soak.undisturbed("crop zarr")
    with soak.fresh(case) as folder:
        words = case.words(folder)
        soak.zygote.run(words, soak.folder / "log", largest=7_000_000 // 2)
        (work,) = scratch_folders(folder / "c")
        other = work.with_name(work.name.removesuffix(f".{SCHEMA}") + f".{SCHEMA + 1}")
        shutil.copytree(work, other)
        for path in (other / "records").iterdir():
            path.write_text('{"rows": 3}')
        before = sorted((p, p.stat().st_size) for p in other.rglob("*"))
        assert str(other) in soak.must(*words)  # it is said that it takes room
        assert sorted((p, p.stat().st_size) for p in other.rglob("*")) == before
        shutil.rmtree(other)
        assert left(folder) == case.whole


def test_records_that_another_version_wrote_are_made_again(soak: Soak) -> None:
    """The same name, and yet not what this version writes: not believed, not a reason to fail."""
    case = soak.undisturbed("crop zarr")
    with soak.fresh(case) as folder:
        words = case.words(folder)
        pid = soak.zygote.start(words, soak.folder / "log")
        until = time.monotonic() + 60
        while not list(folder.rglob("records/*.json")) and time.monotonic() < until:
            time.sleep(0.002)
        soak.zygote.kill(pid)
        for work in scratch_folders(folder / "c"):
            plan = json.loads((work / "plan.json").read_text())
            (work / "plan.json").write_text(json.dumps({**plan, "colour": "blue"}))
            for path in (work / "records").glob("*.json"):
                path.write_text(json.dumps({**json.loads(path.read_text()), "note": {"a": 1}}))
        soak.must(*words)
        assert left(folder) == case.whole


@pytest.mark.parametrize(
    "name", ["crop zarr", "extract with crops hdf5", "convert to zarr", "finalize zarr"]
)
@pytest.mark.parametrize("killed", [False, True])
def test_two_at_once(soak: Soak, name: str, killed: bool) -> None:
    """The same command twice, started together; one of them killed or not."""
    case = soak.undisturbed(name)
    moments = random.Random(name)
    with soak.fresh(case) as folder:
        logs = [soak.folder / "log", soak.folder / "other log"]
        pids = [soak.zygote.start(case.words(folder), log) for log in logs]
        if killed:
            time.sleep(moments.uniform(0, 1.5 * case.seconds))
            first = soak.zygote.kill(pids[0])
        else:
            first = soak.zygote.wait(pids[0])
        ended = [first, soak.zygote.wait(pids[1])]
        said = [log.read_text() for log in logs]
        assert not [text for text in said if "Traceback" in text], said
        # Who comes second finds the work done, or is told so: nothing else may stop it.
        assert 0 in ended or killed, said
        assert set(ended) <= {0, 1, 2, -signal.SIGKILL}
        soak.must(*case.words(folder))
        assert left(folder) == case.whole
