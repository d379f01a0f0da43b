"""Zarr stores from strangers: bombs, codecs, data types, pieces; none takes memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from cache.errors import Refused
from cache.stores.zarr_frames import zstd_size
from tests.hostile import SECRET, little_memory, read_all, refused
from tests.test_cache_verify import make


def packed(data: bytes) -> bytes:
    """As our chunks are: zstd, then its crc32c, which anyone can compute."""
    frame = bytes(Zstd(level=1).encode(data))
    return frame + google_crc32c.value(frame).to_bytes(4, "little")


def with_crc(frame: bytes) -> bytes:
    return frame + google_crc32c.value(frame).to_bytes(4, "little")


def bomb(blocks: int = 240) -> bytes:
    """A frame that is smaller than an honest chunk: 4 bytes say "128 kB of zeros" (RFC 8878)."""
    size = blocks << 17
    head = bytes.fromhex("28b52ffdc038") + size.to_bytes(8, "little")
    last = blocks - 1
    rle = [((k == last) | 1 << 1 | 1 << 20).to_bytes(3, "little") + b"\0" for k in range(blocks)]
    return head + b"".join(rle)


@pytest.mark.parametrize("column", ["label", "latents"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, column: str) -> None:
    path = make(tmp_path / "c", "zarr")
    assert Zstd().decode(bomb()) == bytes(31_457_280)
    chunk = with_crc(bomb())
    if column == "label":
        (path / "data.zarr/label/c/0").write_bytes(chunk)
    else:  # a shard: its chunk, then the index (first byte, bytes), then its checksum
        index = np.array([0, len(chunk)], dtype="<u8").tobytes()
        (path / "data.zarr/latents/c/0/0").write_bytes(chunk + with_crc(index))
    refused(path, rf"{column}, rows .*a chunk would have 31457280 bytes unpacked instead of \d+")


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (bytes(Zstd(level=3).encode(b"x" * 40)), 40),
        (bytes(Zstd(level=3).encode(bytes(70_000))), 70_000),
        (bytes(Zstd(level=3).encode(bytes(5_000_000))), 5_000_000),
        (bytes.fromhex("28b52ffd" "c0" "00" "0000000001000000"), 1 << 32),  # 8 bytes, window
        (bytes.fromhex("28b52ffd" "63" "01020304" "ff00"), 511),  # a dictionary is named
        (bytes.fromhex("28b52ffd" "00" "58" "010000"), None),  # streamed: it does not say
        (bytes.fromhex("28b52ffd" "a0" "0000"), None),  # cut off
        (bytes.fromhex("502a4d18" "04000000" "00000000"), None),  # a frame to be skipped
        (b"", None),
    ],
)  # fmt: skip
def test_a_frame_says_how_large_it_is(frame: bytes, size: int | None) -> None:
    assert zstd_size(frame) == size


@pytest.mark.parametrize("frame", ["0058610000" + "00" * 40, "c00000000000ffffff7f010000"])
def test_what_does_not_say_its_size_or_an_absurd_one(tmp_path: Path, frame: str) -> None:
    path = make(tmp_path / "c", "zarr")
    data = bytes.fromhex("28b52ffd" + frame)
    (path / "data.zarr/label/c/0").write_bytes(with_crc(data))
    refused(path, "bytes unpacked instead of 40; not unpacked")


def test_a_second_frame_behind_the_first_is_no_more_memory(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    both = packed(bytes(40))[:-4] + packed(bytes(40_000))[:-4]
    (path / "data.zarr/label/c/0").write_bytes(with_crc(both))
    refused(path, "a checksum or size is wrong")


def _with_index(path: Path, chunk: bytes, *entries: tuple[int, int]) -> None:
    """A shard: a chunk, then where each chunk lies (first byte, bytes), then a checksum."""
    index = np.array(entries, dtype="<u8").tobytes()
    (path / "data.zarr/latents/c/0/0").write_bytes(chunk + with_crc(index))


def test_megabytes_behind_an_honest_frame_are_not_unpacked(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    good = (path / "data.zarr/latents/c/0/0").read_bytes()
    offset, length = map(int, np.frombuffer(good[-20:-4], "<u8"))
    honest = good[offset : offset + length - 4]
    chunk = with_crc(honest + bytes(Zstd(level=3).encode(bytes(1 << 24))))
    _with_index(path, chunk, (0, len(chunk)))
    with little_memory(5_000_000), pytest.raises(Refused, match="a checksum or size is wrong"):
        read_all(path)


@pytest.mark.parametrize("entry", [(0, 1 << 40), (0, 1 << 62), (1 << 63, 1 << 63), (10, 1 << 13)])
def test_an_index_that_leads_out_of_the_file(tmp_path: Path, entry: tuple[int, int]) -> None:
    path = make(tmp_path / "c", "zarr")
    chunk = (path / "data.zarr/latents/c/0/0").read_bytes()[:-20]
    _with_index(path, chunk, entry)
    refused_by_reader(path, "an index that no cache of ours has")


def test_chunks_that_lie_in_each_other(tmp_path: Path) -> None:
    """Each as long as the file: it would be gone through as often as there are chunks."""
    path = make(tmp_path / "c", "zarr")
    _array(path, lambda said: _shard(said).update(chunk_shape=[1, 24]))
    chunk = packed(bytes(24 * 4))
    _with_index(path, chunk, *[(0, len(chunk))] * 8)
    refused_by_reader(path, "an index that no cache of ours has")


def test_a_file_that_is_larger_than_any_chunk_is_not_read(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    for name in ("label/c/0", "latents/c/1/0"):
        good = (path / "data.zarr" / name).read_bytes()
        with (path / "data.zarr" / name).open("r+b") as file:
            file.truncate(1 << 33)  # takes no room on the disk, and would in memory
        refused_by_reader(path, r"is larger than \d+ bytes; not read")
        (path / "data.zarr" / name).write_bytes(good)


def refused_by_reader(path: Path, says: str) -> None:
    with little_memory(), pytest.raises(Refused, match=says):
        read_all(path)


def _array(path: Path, change: Callable[[dict[str, Any]], object], column: str = "latents") -> None:
    file = path / "data.zarr" / column / "zarr.json"
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


def _shard(said: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = said["codecs"][0]["configuration"]
    return found


def _pieces(said: dict[str, Any], rows: int) -> None:
    said["chunk_grid"]["configuration"]["chunk_shape"][0] = rows


ZARR: dict[str, Callable[[dict[str, Any]], object]] = {
    "pickled objects": lambda s: s.update(data_type={"name": "object", "configuration": {}}),
    "text": lambda s: s.update(data_type="string"),
    "a field of a struct": lambda s: s.update(data_type=[["a", "<i4"]]),
    "another codec": lambda s: _shard(s)["codecs"].append({"name": "numcodecs.pickle"}),
    "blosc": lambda s: s.update(codecs=[{"name": "bytes"}, {"name": "blosc"}]),
    "no checksum": lambda s: _shard(s)["codecs"].pop(),
    "a codec in the index": lambda s: _shard(s)["index_codecs"].insert(1, {"name": "zstd"}),
    "shards in shards": lambda s: _shard(s).update(codecs=copy.deepcopy(s["codecs"])),
    "a transformer": lambda s: s.update(storage_transformers=[{"name": "evil"}]),
    "attributes": lambda s: s.update(attributes={"a": SECRET}),
    "an extension": lambda s: s.update(evil={"must_understand": False, "x": [0] * 99}),
    "another grid": lambda s: s["chunk_grid"].update(name="rectangular"),
    "another fill value": lambda s: s.update(fill_value=SECRET),
    "other names of files": lambda s: s["chunk_key_encoding"].update(name="../../v2"),
    "another separator": lambda s: s["chunk_key_encoding"].update(configuration={"separator": "."}),
    "no shape": lambda s: s.update(shape=[]),
    "a negative shape": lambda s: s.update(shape=[-20, 24]),
    "endless rows": lambda s: s.update(shape=[10**15, 24]),
    "a chunk of another shape": lambda s: _shard(s).update(chunk_shape=[8, 12]),
    "pieces of no shape": lambda s: s["chunk_grid"].update(configuration={"chunk_shape": []}),
    "no chunks": lambda s: _shard(s).update(chunk_shape=[0, 24]),
    "pieces of a terabyte": lambda s: (_pieces(s, 1 << 33), _shard(s).update(chunk_shape=[8, 24])),
    "an index of a gigabyte": lambda s: (
        _pieces(s, 1 << 23),
        _shard(s).update(chunk_shape=[1, 24]),
    ),
    "version 2": lambda s: s.update(zarr_format=2),
    "a group": lambda s: s.update(node_type="group"),
}


@pytest.mark.parametrize("name", ZARR)
def test_an_array_that_is_described_as_none_of_ours(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "c", "zarr")
    _array(path, ZARR[name])
    refused(path, r"latents/zarr\.json (describes|cuts) an? ")


def test_a_side_column_in_pieces_of_no_shape(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    _array(path, ZARR["pieces of no shape"], "label")
    refused(path, r"label/zarr\.json describes an array as no cache")


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 100_000, b"{}", b"[]", b"null", b"\xff", b'{"a": 1e999}', SECRET.encode()],
)
def test_a_zarr_json_that_is_none(tmp_path: Path, text: bytes) -> None:
    path = make(tmp_path / "c", "zarr")
    (path / "data.zarr/latents/zarr.json").write_bytes(text)
    refused(path, "describes an array as no cache of ours has it")


def test_a_huge_zarr_json_is_not_parsed(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    (path / "data.zarr/label/zarr.json").write_text("[" + "1," * 5_000_000 + "1]")
    refused(path, "larger than 1048576 bytes")
