"""Repair: what was written comes back, only what is damaged is done again, or nothing changes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from cache.care.convert import convert
from cache.care.rebuild import Redone
from cache.care.repair import bring_back, forget_killed, repair, what_it_was
from cache.care.verify import Report, verify
from cache.digest import column_digest, row_digests
from cache.errors import CacheDamagedError, CacheExistsError, CacheMismatchError, Refused
from cache.listing import read_provenance
from cache.reader import Cache
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, Kind, Manifest
from cache.store import STORES, Array
from tests.making import nothing
from tests.test_cache_verify import files_of, make, relist, reseal


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Known:
    """Makes again what a whole copy holds, and counts what it is asked for."""

    why_others = "The sun shines otherwise."

    def __init__(self, whole: Path, off: int = 0) -> None:
        """`off`: added to each value."""
        with Cache(whole) as cache:
            self._rows, self._samples = cache.bulk(), cache.samples()
            names = cache.manifest.columns.keys() - {cache.manifest.bulk, "digest"}
            self._side = {name: cache.side(name) for name in names}
        self._off = np.array(off, dtype=self._rows.dtype)
        self.shards: list[tuple[int, int]] = []
        self.others: list[str] = []

    def rows(self, start: int, stop: int, samples: Path) -> Array:
        assert samples.is_file()
        self.shards.append((start, stop))
        return self._rows[start:stop] + self._off

    def side(self, name: str, samples: Path) -> Array:
        assert samples.is_file()
        self.others.append(name)
        return self._side[name]

    def table(self) -> Iterable[dict[str, Any]]:
        self.others.append(SAMPLES)
        return self._samples


def flip(file: Path, *shares: float) -> None:
    """A byte at each share of the file's length."""
    content = bytearray(file.read_bytes())
    for share in shares:
        content[int(share * (len(content) - 1))] ^= 0x5A
    file.write_bytes(content)


def spoil(path: Path, *rows: int) -> None:
    """Latents that are not what was written."""
    if (path / "data.h5").is_file():
        with h5py.File(path / "data.h5", "r+") as file:
            for row in rows:
                file["latents"][row] = 0.25
    else:
        for row in rows:
            flip(path / "data.zarr" / "latents" / "c" / str(row // 8) / "0", 0.1, 0.9)


def mended(path: Path, remake: Any, other: Path | None = None) -> Redone:
    wanted = what_it_was(path, other)
    report = verify(path, nothing) if (path / MANIFEST).is_file() else Report(path)
    return repair(path, wanted, report, other, remake, made="now", tick=nothing)


def whole(path: Path, pattern: Path) -> None:
    """No fault, and the content of `pattern`; nothing beside them."""
    assert verify(path, nothing).faults == []
    with Cache(path) as cache, Cache(pattern) as wanted:
        assert cache.bulk().tobytes() == wanted.bulk().tobytes()
        assert cache.manifest.content == wanted.manifest.content
        assert cache.samples() == wanted.samples()
    assert (path / SAMPLES).read_bytes() == (pattern / SAMPLES).read_bytes()
    assert not [p.name for p in path.parent.iterdir() if p.name.startswith(".")]


def bytes_of(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in files_of(path)}


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_a_flipped_byte_anywhere_is_mended(tmp_path: Path, store: str, kind: Kind) -> None:
    pattern = make(tmp_path / "pattern", store, kind=kind)
    path, before = tmp_path / "c", bytes_of(pattern)
    for number, name in enumerate(before):
        shares = np.linspace(0, 1, 20) if name == "data.h5" else [number / len(before)]
        for share in shares:
            shutil.copytree(pattern, path)
            flip(path / name, float(share))
            if name == MANIFEST:
                with pytest.raises(Refused, match="--from"):
                    what_it_was(path, None)
                mended(path, Known(pattern), pattern)
            else:
                mended(path, Known(pattern))
            whole(path, pattern)
            if store == "zarr" and name != PROVENANCE:
                assert bytes_of(path) == before, name
            shutil.rmtree(path)


def test_only_what_is_damaged_is_done_again(tmp_path: Path, store: str) -> None:
    pattern = make(tmp_path / "pattern", store, rows=40)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    if store == "zarr":
        flip(path / "data.zarr" / "latents" / "c" / "3" / "0", 0.2)
        (path / "data.zarr" / "latents" / "c" / "1" / "0").unlink()
    else:
        with h5py.File(path / "data.h5", "r+") as file:
            file["latents"][9] = file["latents"][31] = 0.5
    remake = Known(pattern)
    ticks: list[int] = []
    wanted, report = what_it_was(path, None), verify(path, nothing)
    done = repair(path, wanted, report, None, remake, made="now", tick=ticks.append)
    assert (done.made, done.taken, done.columns, done.files) == ([1, 3], [], [], [])
    assert remake.shards == [(8, 16), (24, 32)]  # a shard at a time
    assert remake.others == []
    assert sum(ticks) == 2 * 5
    whole(path, pattern)
    assert done.same_bytes == (store == "zarr")
    assert ("repaired" in read_provenance(path)) == (store == "hdf5")
    if store == "hdf5":
        assert read_provenance(path)["repaired"]["shards"] == [1, 3]
    assert read_provenance(path)["made"] == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_what_the_table_says_needs_no_source(tmp_path: Path, kind: Kind) -> None:
    pattern = make(tmp_path / "pattern", "zarr", kind=kind)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    names = ["label", "split", "subject"] + ["row"] * (kind == "latents")
    for name in [*names, "digest"]:
        file = max((path / "data.zarr" / name / "c").rglob("0"))
        file.unlink() if name == "split" else flip(file, 0.7)
    remake = Known(pattern)
    assert sorted(mended(path, remake).columns) == sorted([*names, "digest"])
    # of latents the table has some of the names only, so that their ranks are not known
    assert (remake.shards, remake.others) == ([], ["subject"] if kind == "latents" else [])
    whole(path, pattern)


def test_a_lost_table_is_made_again(tmp_path: Path, store: str) -> None:
    pattern = make(tmp_path / "pattern", store)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    (path / SAMPLES).write_text("")
    (path / PROVENANCE).unlink()
    (path / "love.txt").write_text("dear")
    remake = Known(pattern)
    done = mended(path, remake)
    assert (done.files, done.dropped) == ([SAMPLES, PROVENANCE], ["love.txt"])
    assert (remake.shards, remake.others) == ([], [SAMPLES])
    assert "is lost" in done.notes[0]
    whole(path, pattern)


def test_rows_whose_digests_are_lost_too(tmp_path: Path) -> None:
    """Nothing tells which rows are wrong: a shard of other rows has sound checksums."""
    pattern = make(tmp_path / "pattern", "zarr")
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    flip(path / "data.zarr" / "digest" / "c" / "0" / "0", 0.5)
    array = zarr.open_group(path / "data.zarr", mode="r+")["latents"]
    array[8:16] = 0.5  # type: ignore[index]
    blind = Path(shutil.copytree(path, tmp_path / "blind"))
    assert mended(path, Known(pattern)).made == [1]
    whole(path, pattern)
    wanted = what_it_was(blind, None)
    done = repair(blind, wanted, Report(blind), None, Known(pattern), made="now", tick=nothing)
    assert done.made == [0, 1, 2]
    whole(blind, pattern)


@pytest.mark.parametrize("theirs", STORES)
def test_an_equal_cache_gives_what_is_missing(tmp_path: Path, store: str, theirs: str) -> None:
    """Whatever its store; where it is damaged too, the source is asked."""
    pattern = make(tmp_path / "pattern", store, rows=40)
    other = make(tmp_path / "other", theirs, rows=40)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    spoil(path, 0, 17)
    spoil(other, 17, 39)
    flip(path / SAMPLES, 0.5)
    flip(path / PROVENANCE, 0.5)
    before = bytes_of(other)
    done = mended(path, Known(pattern), other)
    assert (done.taken, done.made, done.files) == ([0], [2], [SAMPLES, PROVENANCE])
    whole(path, pattern)
    assert bytes_of(other) == before


def test_a_lost_manifest_needs_a_proof(tmp_path: Path, store: str) -> None:
    pattern = make(tmp_path / "pattern", store)
    stranger = make(tmp_path / "stranger", store, rows=19)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    (path / MANIFEST).unlink()
    with pytest.raises(Refused, match="name an equal cache with --from"):
        what_it_was(path, None)
    with pytest.raises(CacheMismatchError, match="cannot be shown to be"):
        what_it_was(path, stranger)
    other = "hdf5" if store == "zarr" else "zarr"
    convert(pattern, tmp_path / "other", other, overwrite=False, made="now", tick=nothing)
    assert mended(path, Known(pattern), tmp_path / "other").files == [MANIFEST]
    whole(path, pattern)
    assert (path / MANIFEST).read_bytes() == (pattern / MANIFEST).read_bytes()


def test_other_rows_are_refused_and_nothing_changes(tmp_path: Path, store: str) -> None:
    pattern = make(tmp_path / "pattern", store)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    spoil(path, 0)
    before = bytes_of(path)
    with pytest.raises(CacheMismatchError, match=r"of shard 0 .*Nothing was changed\. The sun"):
        mended(path, Known(pattern, off=1))
    stranger = make(tmp_path / "stranger", store, rows=19)
    with pytest.raises(CacheMismatchError, match="does not hold what"):
        what_it_was(path, stranger)
    with pytest.raises(CacheMismatchError, match="is the damaged cache itself"):
        what_it_was(path, path)
    assert bytes_of(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "pattern", "stranger"]


def test_what_was_wrong_when_it_was_written_stays(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "hdf5")
    with h5py.File(path / "data.h5", "r+") as file:
        rows = file["latents"][:]
        rows[2, 3] = np.nan
        file["latents"][:], file["digest"][:] = rows, row_digests(rows)

    def lie(said: dict[str, Any]) -> None:
        for name in ("digest", "latents"):
            said["columns"][name]["digest"] = column_digest(row_digests(rows))

    reseal(path, lie)
    relist(path)
    before = bytes_of(path)
    with pytest.raises(CacheDamagedError, match=r"NaN or infinity.*wrong when it was written"):
        mended(path, Known(path))
    assert bytes_of(path) == before


def test_links_are_replaced_and_never_followed(tmp_path: Path) -> None:
    """As DVC may have made them: what they lead to stays as it is, damaged or not."""
    pattern, path, kept = make(tmp_path / "pattern", "zarr"), tmp_path / "c", tmp_path / "kept"
    for number, file in enumerate(files_of(pattern)):
        target = kept / str(number)
        kept.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        link = path / file.relative_to(pattern)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    damaged = path / "data.zarr" / "latents" / "c" / "1" / "0"
    flip(damaged.resolve(), 0.5)
    for file in kept.iterdir():
        file.chmod(0o444)
    before = bytes_of(kept)
    assert mended(path, Known(pattern)).made == [1]
    whole(path, pattern)
    assert bytes_of(kept) == before
    assert not any(file.is_symlink() for file in files_of(path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pattern = make(tmp_path / "pattern", "zarr")
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    chunk = path / "data.zarr" / "label" / "c" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(CacheDamagedError, match="label/c/0 is neither a file nor a folder"):
        mended(path, Known(pattern))


def test_two_at_once(tmp_path: Path) -> None:
    pattern = make(tmp_path / "pattern", "zarr")
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    flip(path / SAMPLES, 0.5)
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(CacheExistsError, match="Another run is repairing"):
            mended(path, Known(pattern))
    finally:
        os.close(handle)
    mended(path, Known(pattern))
    whole(path, pattern)


KILLED = """
import os, signal, sys
from pathlib import Path
from cache.care import repair as room
from cache.reader import Cache
from cache.care.verify import verify
left = int(sys.argv[3])
class Samples:
    def table(self):
        with Cache(Path(sys.argv[2])) as cache:
            return cache.samples()
def one_less(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
def counted_rename(self, target):
    one_less()
    done = rename(self, target)
    one_less()
    return done
Path.rename = counted_rename
room.sync_tree = lambda folder: one_less()
path = Path(sys.argv[1])
room.repair(path, room.what_it_was(path, None), verify(path, lambda _: None), None, Samples(),
            made="now", tick=one_less)
"""


@pytest.mark.parametrize("moment", [1, 3, 6, 7, 8, 9, 10, 11])
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, moment: int) -> None:
    """At the shards (1-6), before and after each of the two renames."""
    store = STORES[moment % 2]
    pattern = make(tmp_path / "pattern", store)
    path = Path(shutil.copytree(pattern, tmp_path / "c"))
    flip(path / SAMPLES, 0.5)
    damaged = bytes_of(path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(pattern), str(moment)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert path.exists() == (moment not in (9, 10))
    bring_back(path)
    if moment < 11:
        assert bytes_of(path) == damaged
        mended(path, Known(pattern))
    forget_killed(path)
    whole(path, pattern)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "pattern"]


def test_an_absurd_manifest_takes_no_disk(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "hdf5")

    def absurd(said: dict[str, Any]) -> None:
        said["rows"] = 10**9
        for column in said["columns"].values():
            column["shape"][0] = 10**9
        said["columns"]["latents"]["shape"][1] = 10**5

    reseal(path, absurd)
    wanted = Manifest.model_validate(json.loads((path / MANIFEST).read_text()))
    remake = Known(make(tmp_path / "pattern", "hdf5"))
    with pytest.raises(OSError, match="No room"):
        repair(path, wanted, Report(path), None, remake, made="now", tick=nothing)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "pattern"]
