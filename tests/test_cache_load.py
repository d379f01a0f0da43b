"""How chunks are read: both forms of them, ahead, straight into the result."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.care.verify import verify
from cache.errors import CacheDamagedError
from cache.reader import Cache
from cache.store import STORES
from cache.stores.hdf5_chunks import fletcher32
from cache.stores.zarr_frames import framed
from cache.threads import in_turn
from tests.making import make_cache
from tests.test_cache_shards import without_shard_digests

STREAM = np.random.default_rng(0)
NOISE = STREAM.random((100, 3000), dtype=np.float32)
"""Does not get smaller; 16 rows are in a chunk, of more than one block."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("rows", [NOISE, np.zeros_like(NOISE), NOISE.astype(np.float16)])
def test_any_range_of_rows(tmp_path: Path, store: str, rows: np.ndarray) -> None:
    make_cache(tmp_path / "c", store, rows, shard_rows=32)
    with Cache(tmp_path / "c") as found:
        assert found.chunk_rows == 32
        for start, stop in [(0, 100), (0, 32), (32, 64), (5, 6), (31, 33), (96, 100), (9, 9)]:
            assert found.bulk_rows(start, stop).tobytes() == rows[start:stop].tobytes()
        assert found.bulk().tobytes() == rows.tobytes()
        assert np.array_equal(found.bulk("float32"), rows.astype(np.float32))
        with pytest.raises(IndexError):
            found.bulk_rows(0, 101)


def test_zarr_reads_what_is_stored_as_it_is(tmp_path: Path) -> None:
    """And so little that is no row: latents do not pay for a compression without effect."""
    make_cache(tmp_path / "c", "zarr", NOISE, shard_rows=32)
    group = zarr.open_group(tmp_path / "c" / "data.zarr", mode="r")
    assert np.array_equal(np.asarray(group["latents"]), NOISE)
    shard = tmp_path / "c" / "data.zarr/latents/c/0/0"
    assert 0 < shard.stat().st_size - NOISE[:32].nbytes < 100
    assert NOISE[:8].tobytes() in framed(NOISE[:32].tobytes())


def test_what_gets_smaller_is_squeezed(tmp_path: Path) -> None:
    rows = np.round(NOISE * 4)
    make_cache(tmp_path / "c", "zarr", rows, shard_rows=32)
    assert (tmp_path / "c" / "data.zarr/latents/c/0/0").stat().st_size < rows[:32].nbytes / 2
    with Cache(tmp_path / "c") as found:
        assert np.array_equal(found.bulk(), rows)


def test_frames_as_zstd_itself_makes_them(tmp_path: Path) -> None:
    """Caches of before have no others."""
    make_cache(tmp_path / "c", "zarr", NOISE, shard_rows=32)
    shutil.rmtree(tmp_path / "c" / "data.zarr/latents")
    group = zarr.open_group(tmp_path / "c" / "data.zarr", mode="r+")
    group.create_array(
        "latents",
        data=NOISE,
        chunks=(16, 3000),
        shards=(32, 3000),
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
    )
    with Cache(tmp_path / "c") as found:
        assert found.chunk_rows == 16
        assert found.bulk().tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("size", [1, 1 << 17, (1 << 17) + 1, 3 << 17])
def test_a_frame_of_raw_blocks_is_one_of_zstd(size: int) -> None:
    data = STREAM.bytes(size)
    assert Zstd().decode(framed(data)) == data


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("place", [0, 4, 5, 13, 16, 1000, (1 << 17) + 17, -20])
def test_a_flipped_bit_of_a_raw_frame(tmp_path: Path, place: int) -> None:
    """In its head, a block, the head of another, or the index."""
    make_cache(tmp_path / "c", "zarr", NOISE, shard_rows=32)
    shard = tmp_path / "c" / "data.zarr/latents/c/1/0"
    _flip(shard, place % shard.stat().st_size)
    with Cache(tmp_path / "c") as found:
        assert np.array_equal(found.bulk_rows(0, 32), NOISE[:32])
        with pytest.raises(CacheDamagedError, match="a checksum or size is wrong"):
            found.bulk()


def test_heads_that_lie_under_a_right_checksum(tmp_path: Path) -> None:
    """As long as a raw frame, and none."""
    make_cache(tmp_path / "c", "zarr", NOISE, shard_rows=32)
    shard = tmp_path / "c" / "data.zarr/latents/c/0/0"
    data = bytearray(shard.read_bytes())
    chunk = len(data) - 20  # behind it: its place, its size, a checksum
    data[13] ^= 1  # the first block's head: "the last"
    data[chunk - 4 : chunk] = google_crc32c.value(bytes(data[: chunk - 4])).to_bytes(4, "little")
    shard.write_bytes(data)
    with Cache(tmp_path / "c") as found, pytest.raises(CacheDamagedError, match="size is wrong"):
        found.bulk()


def _of_libhdf5(data: np.ndarray, path: Path) -> int:
    with h5py.File(path, "w") as file:
        held = file.create_dataset("a", data=data, chunks=data.shape, fletcher32=True)
        return int.from_bytes(held.id.read_direct_chunk((0,))[1][-4:], "little")


@pytest.mark.parametrize("size", [2, 6, 4096, 8190, 1 << 20, (1 << 20) + 130])
@pytest.mark.parametrize("value", [0, 255, None])
def test_fletcher32_is_that_of_libhdf5(tmp_path: Path, size: int, value: int | None) -> None:
    data = np.full(size, value or 0, dtype=np.uint8)
    if value is None:
        data = STREAM.integers(0, 256, size, dtype=np.uint8)
    assert fletcher32(data) == _of_libhdf5(data, tmp_path / "a.h5")


def test_a_wrong_checksum_in_hdf5_though_the_rows_are_right(tmp_path: Path) -> None:
    make_cache(tmp_path / "c", "hdf5", NOISE, shard_rows=32)
    path = tmp_path / "c" / "data.h5"
    with h5py.File(path) as file:
        info = file["latents"].id.get_chunk_info(1)
    _flip(path, info.byte_offset + info.size - 1)
    with Cache(tmp_path / "c") as found:
        assert np.array_equal(found.bulk(), NOISE)  # each row has its digest
    assert verify(tmp_path / "c", lambda _: None).faults


def test_the_first_damage_is_told(tmp_path: Path, store: str) -> None:
    """However far was read ahead."""
    rows = np.repeat(NOISE, 10, axis=0)
    make_cache(tmp_path / "c", store, rows, shard_rows=64)
    without_shard_digests(tmp_path / "c")
    with Cache(tmp_path / "c") as found:
        digests = found.side("digest").copy()
        digests[[300, 301, 700]] ^= 1
        found._digest_column = digests
        for _ in range(5):
            with pytest.raises(CacheDamagedError, match="row 300 does not have its digest"):
                found.bulk()


def test_many_threads_read_at_once(tmp_path: Path, store: str) -> None:
    make_cache(tmp_path / "c", store, NOISE, shard_rows=32)
    with Cache(tmp_path / "c") as found:
        wrong = []

        def read(number: int) -> None:
            for start in np.random.default_rng(number).integers(0, 90, 20).tolist():
                if not np.array_equal(found.bulk_rows(start, start + 10), NOISE[start:][:10]):
                    wrong.append(start)

        readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert not wrong


def test_read_ahead_but_not_far() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 9:
            raise ValueError("item 9")
        return item

    found = in_turn(work, range(40), 3)
    for expected in range(9):
        assert next(found) == expected
        assert len(begun) <= expected + 5
    with pytest.raises(ValueError, match="item 9"):
        next(found)
    assert len(begun) < 40
    assert list(in_turn(str, range(1), 3)) == ["0"]
