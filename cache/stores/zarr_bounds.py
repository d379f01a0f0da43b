"""What a zarr.json of ours can say; whatever says anything else is not read.

zarr itself never parses a stranger's: an array is opened by the few values that are taken from
here, so that no codec, data type or extension can be named.  A chunk is decompressed only where
its own header says that it is exactly as large as a chunk is: memory is bounded by the shape.

    zarr.json  ->  ArrayFile (validated)  ->  metadata with codecs of our choice
"""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numcodecs import zstd
from pydantic import BaseModel, ConfigDict, Field
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from cache.errors import CacheDamagedError
from cache.limits import Dtype, Length, validated
from cache.plain import refuse_strange_file, refuse_strange_folder
from cache.schema import MOST_SHARD, parse_json
from cache.source import Place

FILE_LIMIT = 1 << 20  # bytes of a zarr.json; ours have about a thousand
_MOST_PIECES = 1 << 16
"""Chunks in a shard: its index is read as a whole.  Ours have at most 64."""
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"

Shape = Annotated[tuple[Length, ...], Field(min_length=1, max_length=5)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Endian(_Strict):
    endian: Literal["little"] = "little"


class _Bytes(_Strict):
    name: Literal["bytes"]
    configuration: _Endian = _Endian()


class _Level(_Strict):
    level: int = Field(ge=-(1 << 17), le=22)
    checksum: bool = False


class _Zstd(_Strict):
    name: Literal["zstd"]
    configuration: _Level


class _Crc32c(_Strict):
    name: Literal["crc32c"]
    configuration: dict[str, None] = Field(default={}, max_length=0)


_Chunk = tuple[_Bytes, _Zstd, _Crc32c]


class _Shard(_Strict):
    chunk_shape: Shape
    codecs: _Chunk
    index_codecs: tuple[_Bytes, _Crc32c]
    index_location: Literal["end"] = "end"


class _Sharding(_Strict):
    name: Literal["sharding_indexed"]
    configuration: _Shard


class _Pieces(_Strict):
    chunk_shape: Shape


class _Grid(_Strict):
    name: Literal["regular"]
    configuration: _Pieces


class _Slash(_Strict):
    separator: Literal["/"] = "/"


class _Keys(_Strict):
    name: Literal["default"]
    configuration: _Slash = _Slash()


class ArrayFile(_Strict):
    """A zarr.json as ZarrWriter has it written."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: Shape
    data_type: Dtype
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    fill_value: float = Field(ge=0, le=0)
    codecs: tuple[_Sharding] | _Chunk
    attributes: dict[str, None] = Field(default={}, max_length=0)
    storage_transformers: tuple[None, ...] = Field(default=(), max_length=0)
    dimension_names: None = None

    @property
    def piece(self) -> Shape:
        """Shape of what one file holds."""
        return self.chunk_grid.configuration.chunk_shape

    @property
    def chunk(self) -> Shape:
        """Shape of what is compressed together."""
        sharded = self.codecs[0]
        return sharded.configuration.chunk_shape if isinstance(sharded, _Sharding) else self.piece

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.data_type).itemsize

    def files(self, start: int, stop: int) -> list[str]:
        """Names of the files with rows start..stop-1, relative to the array's folder."""
        rows, rest = self.piece[0], "/0" * (len(self.shape) - 1)
        return [f"c/{number}{rest}" for number in range(start // rows, -(-stop // rows))]

    def most_bytes(self) -> int:
        """A file cannot have more: zstd adds less than 1 % to what it cannot compress."""
        count = self.piece[0] // self.chunk[0]
        return count * self.most_chunk_bytes() + 16 * count + 4

    def most_chunk_bytes(self) -> int:
        """The same of what is compressed together."""
        raw = self.chunk[0] * self.row_bytes
        return raw + raw // 128 + 1024

    def metadata(self) -> dict[str, Any]:
        """For `zarr.AsyncArray`."""
        codecs: list[Any] = [BytesCodec(), BoundedZstd(), Crc32cCodec()]
        if isinstance(self.codecs[0], _Sharding):
            codecs = [ShardingCodec(chunk_shape=self.chunk, codecs=codecs)]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.shape,
            "data_type": self.data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.piece}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": codecs,
            "attributes": {},
            "storage_transformers": [],
        }


def array_file(raw: bytes, place: Place) -> ArrayFile:
    """`raw`: a zarr.json; `place`: its name in messages.

    Raises:
        CacheDamagedError: not as ZarrWriter has it written, or cut into absurd pieces.
    """
    try:
        found = validated(ArrayFile, parse_json(raw))
    except ValueError as error:
        raise CacheDamagedError(
            f"{place} describes an array as no cache of ours has it: {error}; not read."
        ) from None
    piece, chunk = found.piece, found.chunk
    if not piece[1:] == chunk[1:] == found.shape[1:] or piece[0] % chunk[0]:
        raise CacheDamagedError(
            f"{place} cuts an array of {found.shape} into {piece} and {chunk}; not read."
        )
    cell = piece[0] * found.row_bytes
    if cell > max(found.shape[0] * found.row_bytes, MOST_SHARD):
        raise CacheDamagedError(f"{place} cuts an array into pieces of {cell} bytes; not read.")
    if piece[0] // chunk[0] > _MOST_PIECES:
        raise CacheDamagedError(
            f"{place} cuts a shard into {piece[0] // chunk[0]} chunks, more than {_MOST_PIECES}; "
            "not read."
        )
    return found


def refuse_strange_files(folder: Place, found: ArrayFile, start: int, stop: int) -> None:
    """Look at the files with rows start..stop-1 before they are read, which is always as a whole.

    Raises:
        CacheDamagedError: one is no plain file or larger than any can be, or a folder is a link.
    """
    most = found.most_bytes()
    for name in found.files(start, stop):
        place = folder
        *folders, last = name.split("/")
        for part in folders:
            place = place / part
            if isinstance(place, Path) and place.is_symlink():
                refuse_strange_folder(place)
        place = place / last
        held = place.is_file() if not isinstance(place, Path) else os.path.lexists(place)
        if held:  # digests find what is missing
            size = refuse_strange_file(place, most)
            if isinstance(found.codecs[0], _Sharding):
                _refuse_odd_index(place, found, size)


def _refuse_odd_index(place: Place, found: ArrayFile, size: int) -> None:
    """The index at the end of a shard says where each chunk lies: whatever it says, zarr reads.

    Raises:
        CacheDamagedError: chunks outside of the file, larger than any can be, or one in another.
    """
    count = found.piece[0] // found.chunk[0]
    begin = size - 16 * count - 4  # offset and length of each chunk, and a checksum
    if begin < 0:
        raise CacheDamagedError(f"{place} is too short to hold the index of its chunks.")
    with place.open("rb") as file:
        file.seek(begin)
        index = np.frombuffer(file.read(16 * count), "<u8").reshape(-1, 2)
    offset, length = index[(index != np.iinfo("<u8").max).any(axis=1)].T
    order = np.argsort(offset)
    inside = (offset <= begin).all() and (length <= found.most_chunk_bytes()).all()
    ends = (offset + length)[order] if inside else offset
    if not inside or (ends > begin).any() or (offset[order][1:] < ends[:-1]).any():
        raise CacheDamagedError(f"{place} has an index that no cache of ours has; not read.")


def zstd_size(frame: bytes) -> int | None:
    """Bytes of what a zstd frame holds, as its header says (RFC 8878); None where it does not.

    >>> zstd_size(bytes.fromhex("28b52ffd604000")), zstd_size(b"no frame")
    (320, None)
    """
    if len(frame) < 5 or frame[:4] != _ZSTD_FRAME:
        return None
    flags = frame[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    field = frame[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


class BoundedZstd(ZstdCodec):
    """Decompresses what is as large as its chunk, and refuses anything else before it begins."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        packed = chunk_bytes.as_numpy_array()
        size = zstd_size(packed[:18].tobytes())
        needed = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        if size != needed:
            says = "an unknown number of" if size is None else str(size)
            raise CacheDamagedError(
                f"a chunk would have {says} bytes unpacked instead of {needed}; not unpacked."
            )
        # More frames may follow the first: there is room for one.
        unpacked = zstd.decompress(packed, np.empty(needed, dtype=np.uint8))
        return chunk_spec.prototype.buffer.from_array_like(unpacked)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)
