"""What a zarr.json of ours can say; whatever says anything else is not read.

zarr itself never parses a stranger's: an array is read by the few values that are taken from
here, so that no codec, data type or extension can be named.

    zarr.json  ->  ArrayFile (validated)  ->  zarr_chunks.py
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cache.errors import CacheDamagedError
from cache.limits import Dtype, Length, validated
from cache.schema import MOST_SHARD, parse_json
from cache.source import Place

FILE_LIMIT = 1 << 20  # bytes of a zarr.json; ours have about a thousand
_MOST_PIECES = 1 << 16
"""Chunks in a shard: its index is read as a whole.  Ours have at most 64."""

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

    @property
    def sharded(self) -> bool:
        """Whether a file holds several chunks, and an index of them."""
        return isinstance(self.codecs[0], _Sharding)

    def file(self, number: int) -> str:
        """Name of the file with the rows from number * piece[0] on, in the array's folder."""
        return f"c/{number}" + "/0" * (len(self.shape) - 1)

    def most_bytes(self) -> int:
        """A file cannot have more: zstd adds less than 1 % to what it cannot compress."""
        count = self.piece[0] // self.chunk[0]
        return count * self.most_chunk_bytes() + 16 * count + 4

    def most_chunk_bytes(self) -> int:
        """The same of what is compressed together."""
        raw = self.chunk[0] * self.row_bytes
        return raw + raw // 128 + 1024


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
