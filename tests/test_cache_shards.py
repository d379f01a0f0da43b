"""Digests of shards: what is read whole is compared with them, everything else row by row."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from cache import threads, writer
from cache.care.convert import convert
from cache.care.verify import verify
from cache.errors import CacheDamagedError
from cache.files import write_json
from cache.reader import Cache
from cache.schema import MANIFEST, Manifest, read_manifest
from cache.store import STORES
from cache.threads import side_by_side
from tests.making import make_cache, nothing

STREAM = np.random.default_rng(0)
ROWS = STREAM.random((100, 3000), dtype=np.float32)
"""In shards of 32: the last has four."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def resealed(path: Path, **change: Any) -> Manifest:
    """A changed manifest with its digest in order."""
    found = read_manifest(path).model_copy(update=change).sealed()
    write_json(path / MANIFEST, found.model_dump(mode="json"))
    return found


def without_shard_digests(path: Path) -> Manifest:
    """As caches of before."""
    return resealed(path, shard_digests=None)


def _cache(path: Path, store: str, *, old: bool = False, rows: np.ndarray = ROWS) -> Path:
    make_cache(path, store, rows, shard_rows=32)
    if old:
        without_shard_digests(path)
    return path


def _flip(path: Path, row: int, column: int) -> None:
    """One bit of a value; of the squeezed chunk in the last shard of a Zarr cache, any."""
    file = path / "data.h5"
    if not file.is_file():
        file = path / "data.zarr" / "latents" / "c" / str(row // 32) / "0"
    data = bytearray(file.read_bytes())
    place = data.find(ROWS[row, column : column + 4].tobytes())
    assert place >= 0 or row >= 96
    data[max(place, 100)] ^= 4
    file.write_bytes(data)


def test_they_are_of_the_rows_whatever_the_store(tmp_path: Path) -> None:
    made = [read_manifest(_cache(tmp_path / store, store)) for store in STORES]
    expected = tuple(
        f"blake3:{blake3(ROWS[k : k + 32].tobytes()).hexdigest()}" for k in (0, 32, 64, 96)
    )
    assert [found.shard_digests for found in made] == [expected] * 2
    for source, to in (STORES, STORES[::-1]):
        convert(tmp_path / source, tmp_path / "c", to, overwrite=True, made="", tick=nothing)
        assert read_manifest(tmp_path / "c") == next(m for m in made if m.store == to)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_range(tmp_path: Path, store: str, old: bool, dtype: str) -> None:
    rows = ROWS.astype(dtype)
    path = _cache(tmp_path / "c", store, old=old, rows=rows)
    with Cache(path) as found:
        assert found.bulk().tobytes() == rows.tobytes()
        assert np.array_equal(found.bulk("float64"), rows.astype(np.float64))
        for start in (0, 1, 31, 32, 64, 95, 96):
            for stop in (32, 33, 96, 99, 100):
                got = found.bulk_rows(start, max(start, stop))
                assert got.tobytes() == rows[start:stop].tobytes(), (start, stop)
    make_cache(tmp_path / "d", store, rows[:64], shard_rows=32)
    with Cache(tmp_path / "d") as found:
        assert [len(found.bulk_rows(k, k)) for k in (0, 32, 40, 64)] == [0] * 4


@pytest.mark.parametrize("processors", [1, 2, 8])
@pytest.mark.parametrize("old", [False, True])
def test_each_flipped_bit_is_found(
    tmp_path: Path, store: str, old: bool, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_processors", lambda: processors)
    whole = _cache(tmp_path / "c", store, old=old)
    for row, column in [(0, 0), (31, 2996), (32, 0), (70, 1500), (99, 2996)]:
        path = tmp_path / f"at {row}"
        shutil.copytree(whole, path)
        _flip(path, row, column)
        with Cache(path) as found:
            for read in (
                found.bulk,
                lambda f=found: f.bulk("float64"),
                lambda: found.bulk_rows(0, 100),
            ):
                with pytest.raises(CacheDamagedError, match="row"):
                    read()
            start = row // 32 * 32
            assert np.array_equal(found.bulk_rows(0, start), ROWS[:start])


def test_of_several_damaged_shards_the_first_is_told(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_processors", lambda: 4)
    path = _cache(tmp_path / "c", store)
    for row in (40, 70, 99):
        _flip(path, row, 500)
    with Cache(path) as found:
        for _ in range(10):
            with pytest.raises(CacheDamagedError, match="rows 32 to 63"):
                found.bulk()


def test_rows_that_have_their_digests_in_a_shard_that_has_not(tmp_path: Path, store: str) -> None:
    """Whoever wrote such a manifest, it contradicts itself."""
    path = _cache(tmp_path / "c", store)
    listed = read_manifest(path).shard_digests
    assert listed is not None
    resealed(path, shard_digests=(listed[0], listed[0], *listed[2:]))
    with Cache(path) as found:
        with pytest.raises(
            CacheDamagedError, match="rows 32 to 63 do not have the digest of their"
        ):
            found.bulk()
        assert np.array_equal(found.bulk_rows(40, 50), ROWS[40:50])
    (fault,) = verify(path, nothing).faults
    assert (fault.where, fault.rows, fault.shards) == ("column latents", ((32, 63),), (1,))


def test_verify_names_a_shard_where_digests_of_rows_are_lost(tmp_path: Path) -> None:
    """Chunks whose checksums are right, in a Zarr cache, with other rows."""
    path, other = _cache(tmp_path / "c", "zarr"), _cache(tmp_path / "o", "zarr", rows=1 - ROWS)
    for file in ("data.zarr/latents/c/2/0", "data.zarr/digest/c/0/0"):
        shutil.copyfile(other / file, path / file)
    found = [f for f in verify(path, nothing).faults if f.where == "column latents"]
    assert ((64, 95),) in [f.rows for f in found]


def test_a_cache_of_before_has_the_manifest_of_before(tmp_path: Path, store: str) -> None:
    path = _cache(tmp_path / "c", store, old=True)
    assert "shard_digests" not in json.loads((path / MANIFEST).read_text())
    assert verify(path, nothing).faults == []
    with Cache(path) as found:
        assert found.manifest.shard_digests is None


def test_a_cache_of_very_many_shards_lists_none(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_DIGESTS", 3)
    path = _cache(tmp_path / "c", store)
    assert "shard_digests" not in json.loads((path / MANIFEST).read_text())
    with Cache(path) as found:
        assert np.array_equal(found.bulk(), ROWS)


def test_shards_smaller_than_chunks_do_not_read_a_chunk_again_and_again(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _cache(tmp_path / "c", store)
    of_rows = tuple(f"blake3:{blake3(row.tobytes()).hexdigest()}" for row in ROWS)
    resealed(path, shard_rows=1, shard_digests=of_rows)
    reads: list[int] = []
    read = Cache._read

    def counted(self: Cache, start: int, room: np.ndarray) -> np.ndarray:
        reads.append(start)
        return read(self, start, room)

    monkeypatch.setattr(Cache, "_read", counted)
    with Cache(path) as found:
        assert np.array_equal(found.bulk(), ROWS)
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda all_: all_[:-1], "lists digests of 3 shards, the cache has 4"),
        (lambda all_: [*all_, all_[0]], "lists digests of 5 shards, the cache has 4"),
        (lambda _: [], "lists digests of 0 shards"),
        (lambda all_: all_ * 20_000, "not a manifest of schema 2: shard_digests"),
        (lambda all_: [*all_[:-1], "blake3:"], "not a manifest of schema 2: shard_digests"),
        (lambda all_: [*all_[:-1], 7], "not a manifest of schema 2: shard_digests"),
        (lambda all_: all_[0], "not a manifest of schema 2: shard_digests"),
        (lambda all_: all_[::-1], "does not have its digest: it was changed"),
    ],
)
def test_lists_that_are_none(
    tmp_path: Path, change: Callable[[list[str]], object], says: str
) -> None:
    path = _cache(tmp_path / "c", "hdf5")
    said = json.loads((path / MANIFEST).read_text())
    said["shard_digests"] = change(said["shard_digests"])
    if "lists" in says:  # a liar would seal it
        said = Manifest.model_validate(said).sealed().model_dump(mode="json")
    write_json(path / MANIFEST, said)
    with pytest.raises(CacheDamagedError, match=says):
        Cache(path)


# threads


def test_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time here: each waits for the other.  This thread is one of them."""
    monkeypatch.setattr(threads, "_processors", lambda: 2)
    meet = threading.Barrier(2, timeout=20)
    done: list[tuple[int, int]] = []

    def work(item: int) -> None:
        meet.wait()
        done.append((item, threading.get_ident()))

    before = threading.active_count()
    side_by_side(work, range(10))
    assert sorted(item for item, _ in done) == list(range(10))
    assert threading.get_ident() in {thread for _, thread in done}
    assert len({thread for _, thread in done}) == 2
    assert threading.active_count() == before
    side_by_side(work, [])


@pytest.mark.parametrize("processors", [1, 2, 3])
def test_the_first_exception_comes_and_ends_the_work(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_processors", lambda: processors)
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item >= 7:
            raise ValueError(f"item {item}")

    for _ in range(20):
        begun.clear()
        with pytest.raises(ValueError, match="item 7"):
            side_by_side(work, range(1000))
        assert len(begun) <= 7 + 2 * processors
