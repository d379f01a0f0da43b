"""gc takes what interrupted commands have left, and nothing else; ls over the same folders."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.care.collect import Verdict, collect, remove
from cache.find import find
from cache.parts import unfinished
from cache.schema import MANIFEST, read_manifest, scratch_folders
from cache.share.export import export
from cache.store import STORES
from tests.command import Run
from tests.making import make_cache, nothing
from tests.test_cache_verify import make

DAY, WEEK = 86400.0, 7 * 86400.0
ROWS = np.zeros((10, 6), dtype=np.float32)


def _ok(done: Any, code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout) + str(done.stderr)


def _found(root: Path, older_than: float = WEEK, later: float = 0.0) -> dict[str, Verdict]:
    """By name, as `gc` finds it so many seconds from now."""
    found = list(collect(root, older_than, time.time() + later))
    assert len({verdict.path for verdict in found}) == len(found)
    return {verdict.path.name: verdict for verdict in found}


def _goes(root: Path, older_than: float = WEEK, later: float = 0.0) -> set[str]:
    return {name for name, verdict in _found(root, older_than, later).items() if verdict.goes}


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _work(root: Path, name: str = "c") -> Path:
    """Two of three units of a cache."""
    make_cache(root / name, "zarr", ROWS, stop_after=2)
    return scratch_folders(root / name)[0]


# unfinished work


def test_work_goes_when_nobody_touches_it(tmp_path: Path) -> None:
    scratch = _work(tmp_path)
    assert _goes(tmp_path) == set()
    assert _goes(tmp_path, later=WEEK - 60) == set()
    assert _goes(tmp_path, later=WEEK + 60) == {scratch.name}
    assert _goes(tmp_path, older_than=DAY, later=DAY + 60) == {scratch.name}
    assert _goes(tmp_path, older_than=0) == {scratch.name}
    assert _goes(tmp_path, older_than=0, later=-DAY) == {scratch.name}, "a clock that was set back"
    verdict = _found(tmp_path, later=WEEK + 60)[scratch.name]
    assert "unfinished latents for c, 2 of 3 units" in verdict.why
    assert verdict.bytes == sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file())
    assert verdict.age == pytest.approx(WEEK + 60, abs=30)


def test_its_newest_file_counts(tmp_path: Path) -> None:
    """One unit written lately keeps all of it."""
    scratch = _work(tmp_path)
    old = time.time() - 2 * WEEK
    for path in [*scratch.rglob("*"), scratch]:
        os.utime(path, (old, old))
    assert _goes(tmp_path) == {scratch.name}
    os.utime(scratch / "parts" / "00001.npy", (old + 1.9 * WEEK, old + 1.9 * WEEK))
    assert _goes(tmp_path) == set()
    assert "touched lately" in _found(tmp_path)[scratch.name].why


def test_work_that_was_gone_on_with_meanwhile_stays(tmp_path: Path) -> None:
    scratch = _work(tmp_path)
    (verdict,) = collect(tmp_path, WEEK, time.time() + 2 * WEEK)
    assert verdict.goes
    assert "touched lately" in remove(verdict, WEEK)
    assert scratch.exists()
    make_cache(tmp_path / "c", "zarr", ROWS)
    assert remove(verdict, WEEK) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_work_whose_cache_is_there(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", "zarr", ROWS)
    scratch = _work(tmp_path / "other")
    scratch = scratch.rename(tmp_path / scratch.name)
    assert _goes(tmp_path) == set()
    assert _goes(tmp_path, later=3660) == {scratch.name}
    assert "the finished c is there already" in _found(tmp_path)[scratch.name].why


def test_work_of_another_version(tmp_path: Path) -> None:
    scratch = _work(tmp_path)
    plan = json.loads((scratch / "plan.json").read_text())
    (scratch / "plan.json").write_text(json.dumps(plan | {"schema_version": 1, "spare": [1]}))
    assert _goes(tmp_path, later=DAY) == set()
    assert _goes(tmp_path, later=2 * WEEK) == {scratch.name}
    assert "schema 1" in _found(tmp_path)[scratch.name].why


def test_work_that_was_killed_at_its_start(tmp_path: Path) -> None:
    scratch = _work(tmp_path)
    shutil.rmtree(scratch)
    (scratch / "parts").mkdir(parents=True)
    assert _goes(tmp_path) == set()
    assert _goes(tmp_path, later=3660) == {scratch.name}


# what killed commands leave


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("word", ["convert", "import", "export", "repair"])
def test_a_killed_command(tmp_path: Path, word: str, store: str) -> None:
    """It is at work as long as it holds the lock; then an hour is enough."""
    left = make(tmp_path / "x", store).rename(tmp_path / f".c.{word}-0123456789ab")
    if word in ("import", "export"):  # there, what is made lies in the folder
        left.rename(tmp_path / "c")
        left.mkdir()
        (tmp_path / "c").rename(left / "c")
    handle = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert _goes(tmp_path, older_than=0) == set()
        assert "at work now" in _found(tmp_path, later=DAY)[left.name].why
    finally:
        os.close(handle)
    assert _goes(tmp_path) == set()
    assert _goes(tmp_path, later=3660) == {left.name}
    assert _goes(tmp_path, older_than=0) == {left.name}
    assert {found.state for found in find(tmp_path)} <= {"set aside"}


@pytest.mark.parametrize("name", [".c.replaced-0123456789ab", ".c.work-{}.4.2.replaced-01234567"])
def test_the_only_copy_stays(tmp_path: Path, name: str) -> None:
    """Killed between two renames, an --overwrite leaves the old cache, and no new one."""
    name = name.format("0" * 12)
    aside = make(tmp_path / "c", "hdf5").rename(tmp_path / name)
    assert _goes(tmp_path, older_than=0, later=WEEK) == set()
    assert f"mv {name} c" in _found(tmp_path)[name].why
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / MANIFEST).write_text("{")
    assert _goes(tmp_path, older_than=0) == set(), "what is there is no cache"
    shutil.rmtree(tmp_path / "c")
    make(tmp_path / "c", "zarr", settings={"seed": 1})
    assert _goes(tmp_path, later=3660) == {name}
    assert aside.exists()


def test_an_old_export(tmp_path: Path) -> None:
    source = make(tmp_path / "a", "zarr")
    for out in (tmp_path / "e", tmp_path / ".e.replaced-0123456789ab"):
        export(source, out, "npy", crops=False, names=True, overwrite=False, tick=nothing)
    assert _goes(tmp_path, older_than=0) == {".e.replaced-0123456789ab"}


def test_deletions_that_were_interrupted(tmp_path: Path) -> None:
    scratch = _work(tmp_path)
    names = {f"{scratch.name}.done-01234567", ".d.convert-0123456789ab.done-01234567"}
    scratch.rename(tmp_path / min(names, key=len).replace(".d.convert-0123456789ab", scratch.name))
    make(tmp_path / "d", "zarr").rename(tmp_path / ".d.convert-0123456789ab.done-01234567")
    (tmp_path / f"{scratch.name}.done-01234567" / "plan.json").unlink()
    (tmp_path / ".labels.csv.0123456789ab.tmp").write_text("half")
    assert _goes(tmp_path, later=3660) == names | {".labels.csv.0123456789ab.tmp"}


# what must never go


def test_what_only_looks_like_a_leftover(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    scratch = _work(outside)
    root = tmp_path / "root"
    root.mkdir()
    key = scratch.name.removeprefix(".c.")
    (root / f".file.{key}").write_text("a file")
    (root / f".link.{key}").symlink_to(scratch)
    (root / "linked").symlink_to(outside)
    for name in (f".a.{key}", ".b.work-mine", ".d.convert-0123456789ab", ".e.replaced-thesis"):
        (root / name).mkdir()
        (root / name / "thesis.tex").write_text("x")
    mine = shutil.copytree(scratch, root / f".mine.{key}")
    (mine / "parts" / "notes.txt").write_text("x")
    shutil.copytree(scratch, root / f".deep.{key}")
    (root / f".deep.{key}" / "parts" / "00002.npy").symlink_to(outside / scratch.name / "plan.json")
    other = shutil.copytree(scratch, root / f".other.{key}")
    (other / "plan.json").write_text('{"name": "a plan of some other program"}')
    bare = shutil.copytree(scratch, root / f".bare.{key}")
    (bare / "plan.json").unlink()
    before = _tree(tmp_path)
    found = _found(root, older_than=0, later=10 * WEEK)
    assert not [name for name, verdict in found.items() if verdict.goes]
    assert {name: v.why for name, v in found.items() if "thesis.tex" in v.why} != {}
    assert "notes.txt, which lgr-pipe does not put there" in found[mine.name].why
    assert "a file or a link" in found[f".link.{key}"].why
    assert "no plan.json" in found[bare.name].why
    assert len(found) == 10
    for verdict in found.values():
        assert verdict.why == remove(verdict, 0) or verdict.why.startswith("kept")
    assert _tree(tmp_path) == before


def test_finished_caches_and_other_things_stay(tmp_path: Path, here: Run) -> None:
    for store in STORES:
        make(tmp_path / store, store)
    damaged = make(tmp_path / "damaged", "zarr")
    (damaged / MANIFEST).write_text("{")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_text("x")
    before = _tree(tmp_path)
    assert "Nothing is left over" in _ok(here("cache", "gc", tmp_path, "--older-than", 0))
    assert _tree(tmp_path) == before


def test_a_deep_tree_and_a_strange_name(tmp_path: Path, here: Run) -> None:
    """Names are bytes of whoever made them; a folder can be deeper than Python can recurse."""
    name = ".\x1b[2J\u202e\n.work-0123456789ab.4.2"
    (tmp_path / name).mkdir()
    (tmp_path / name / "\x1b[2J\n").write_text("x")
    here_fd = os.open(tmp_path, os.O_RDONLY)
    deep = tmp_path / ".c.convert-0123456789ab"
    deep.mkdir()
    for top in ("deep", ".c.convert-0123456789ab/data.zarr"):
        handle = os.dup(here_fd)
        for part in [*top.split("/"), *["d"] * 1100]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=handle)
            inner = os.open(part, os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle = inner
        os.close(handle)
    os.close(here_fd)
    try:
        for words in (("ls", tmp_path), ("gc", tmp_path, "--dry-run", "--older-than", 0)):
            for more in ((), ("--json",)):
                said = _ok(here("cache", *words, *more))
                assert not set(said) & set("\x1b\u202e")
        assert "lgr-pipe does not put there" in said
        assert deep.exists()
    finally:  # Python's own way of deleting would recurse
        subprocess.run(["rm", "-rf", deep, tmp_path / "deep"], check=True)


# the command


def test_gc_says_and_does(tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Nothing is left over below ." in _ok(here("cache", "gc"))
    good = make(tmp_path / "caches" / "deep" / "good", "zarr")
    scratch = _work(tmp_path / "caches")
    (tmp_path / "caches" / ".x.work-mine").mkdir()
    before = _tree(tmp_path)
    text = _ok(here("cache", "gc", "--dry-run", "--older-than", "0"))
    assert "would go" in text
    assert "unfinished latents for c, 2 of 3 units" in text
    assert "1 of 2 leftovers would go" in text
    assert _tree(tmp_path) == before
    _ok(here("cache", "gc"))
    assert _tree(tmp_path) == before, "it is new"
    size = sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file())
    said = json.loads(_ok(here("cache", "gc", "--older-than", 0, "--json")))
    assert (said["dry_run"], said["freed"]) == (False, size)
    assert sorted(entry["goes"] for entry in said["found"]) == [False, True]
    assert sorted(p.name for p in (tmp_path / "caches").iterdir()) == [".x.work-mine", "deep"]
    assert read_manifest(good)
    assert here("cache", "gc", "nowhere").returncode == 2
    for days in ("-1", "nan"):
        assert here("cache", "gc", "--older-than", days).returncode == 2


def test_a_shared_root_must_be_named(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there may be the work of somebody else; to list it does no harm."""
    root, project = tmp_path / "root", tmp_path / "project"
    project.mkdir()
    scratch = _work(root)
    monkeypatch.setenv("LGR_PIPE_CACHE_ROOT", str(root))
    monkeypatch.chdir(project)
    for folder in (".", "caches"):
        (project / folder).mkdir(exist_ok=True)
        said = _ok(here("cache", "gc", "--older-than", 0))
        assert f"Nothing is left over below {folder}." in said
        assert scratch.exists()
    assert "unfinished" in _ok(here("cache", "ls"))
    _ok(here("cache", "gc", root, "--older-than", 0))
    assert not scratch.exists()


def test_what_cannot_be_removed(tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = _work(tmp_path)

    def full(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", full)
    said = _ok(here("cache", "gc", tmp_path, "--older-than", 0), 1)
    assert "could not be removed: Permission denied" in said
    assert "0 of 1 leftovers went, 0 bytes" in said
    monkeypatch.undo()
    assert not scratch.exists(), "half deleted, it must not be gone on with"
    _ok(here("cache", "gc", tmp_path, "--older-than", 0))
    assert list(tmp_path.iterdir()) == []


def test_room_that_does_not_come_free(tmp_path: Path) -> None:
    """DVC links: what another name keeps is not freed."""
    old = make(tmp_path / "c", "hdf5").rename(tmp_path / ".c.replaced-0123456789ab")
    make(tmp_path / "c", "hdf5")
    whole = _found(tmp_path)[old.name].bytes
    size = (old / "data.h5").stat().st_size
    (tmp_path / "kept").hardlink_to(old / "data.h5")
    assert _found(tmp_path)[old.name].bytes == whole - size


def test_a_hundred_caches_are_quick(tmp_path: Path, here: Run) -> None:
    """Finished, unfinished and broken ones; vgg16's manifest has 46 kB."""
    one = make(tmp_path / "projects" / "0" / "one", "zarr", info={"weights": "x" * 200})
    two = make(tmp_path / "projects" / "0" / "two", "hdf5", kind="crops")
    work = _work(tmp_path / "projects" / "0")
    for k in range(1, 40):
        for source in (one, two, work):
            shutil.copytree(source, tmp_path / "projects" / str(k) / source.name)
    for k in range(30, 40):
        (tmp_path / "projects" / str(k) / "one" / MANIFEST).write_text("{" * k)
    for words, code in ((("ls",), 0), (("gc", "--dry-run"), 0)):
        _ok(here("cache", *words, one, "--json"))  # imports
        started = time.process_time()
        said = json.loads(_ok(here("cache", words[0], tmp_path, *words[1:], "--json"), code))
        assert time.process_time() - started < 2
        assert len(said if words == ("ls",) else said["found"]) == (120 if words == ("ls",) else 40)
    states = [found.state for found in find(tmp_path)]
    assert [states.count(s) for s in ("finished", "unfinished", "damaged")] == [70, 40, 10]


def test_work_can_be_gone_on_with_after_gc(tmp_path: Path) -> None:
    """What is kept is kept whole."""
    _work(tmp_path)
    for verdict in collect(tmp_path, WEEK):
        remove(verdict, WEEK)
    assert unfinished(tmp_path / "c", "latents").missing() == [2]
