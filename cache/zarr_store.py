"""Zarr v3 folder: one file per shard, checksummed chunks inside.

Evidence for the settings: a plain zstd shard with a flipped bit reads back
wrong without an error, crc32c inside finds it; chunks never written read
back as zeros, so completeness is the manifest's business, not the folder's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from cache.errors import CacheDamagedError
from cache.printable import printable
from cache.schema import MOST_SHARD, chunk_rows_for
from cache.store import Array, Bulk, little_endian

FOLDER = "data.zarr"
_COMPRESSORS = (ZstdCodec(level=3), Crc32cCodec())
_CODECS = (BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec)  # nothing else is decoded


class ZarrWriter:
    def __init__(self, folder: Path, bulk: Bulk) -> None:
        self._path, self._bulk = folder / FOLDER, bulk

    def create(self) -> None:
        bulk = self._bulk
        group = zarr.open_group(self._path, mode="w")
        self._array = group.create_array(
            bulk.name,
            shape=bulk.shape,
            dtype=little_endian(bulk.dtype),
            chunks=(chunk_rows_for(bulk.shard_rows, bulk.row_bytes), *bulk.shape[1:]),
            shards=(bulk.shard_rows, *bulk.shape[1:]),
            compressors=_COMPRESSORS,
            config={"write_empty_chunks": True},  # all-zero rows are content like any other
        )

    def write_shard(self, shard: int, rows: Array) -> None:
        span = self._bulk.rows_of(shard)
        self._array[span.start : span.stop] = rows

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        group = zarr.open_group(self._path, mode="r+")
        for name, values in side.items():
            array = group.create_array(
                name,
                shape=values.shape,
                dtype=little_endian(values.dtype.name),
                chunks=values.shape,
                compressors=_COMPRESSORS,
                config={"write_empty_chunks": True},
            )
            array[:] = values
        group.attrs.update(attributes)


class ZarrReader:
    def __init__(self, folder: Path) -> None:
        path = folder / FOLDER
        if not path.is_dir():
            raise CacheDamagedError(f"{path} is missing.")
        self._path = path
        self._arrays: dict[str, Any] = {}

    def _array(self, column: str) -> Any:
        if column not in self._arrays:
            try:
                array = zarr.open_array(self._path / column, mode="r", zarr_format=3)
                codecs = _all_codecs(array.metadata.codecs)  # type: ignore[union-attr]
            except Exception as error:  # zarr raises many kinds for a broken zarr.json
                raise CacheDamagedError(
                    f"{self._path / column} cannot be opened: {printable(error)}"
                ) from error
            strange = [type(c).__name__ for c in codecs if not isinstance(c, _CODECS)]
            if strange:
                raise CacheDamagedError(
                    f"{self._path / column} uses {strange[0]}, as no cache of ours does; not read."
                )
            cell = math.prod(array.shards or array.chunks) * array.dtype.itemsize
            if cell > max(array.nbytes, MOST_SHARD):
                raise CacheDamagedError(
                    f"{self._path / column} is cut into pieces of {cell} bytes; not read."
                )
            self._arrays[column] = array
        return self._arrays[column]

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        array = self._array(column)
        return array.dtype.name, tuple(array.shape)

    def read(self, column: str, start: int, stop: int) -> Array:
        try:
            rows: Array = self._array(column)[start:stop]
        except CacheDamagedError:
            raise
        except Exception as error:  # checksum, truncation, missing index: all mean damage
            raise CacheDamagedError(
                f"{self._path / column}, rows {start} to {stop - 1}: {printable(error)}"
            ) from error
        return rows

    def close(self) -> None:
        self._arrays.clear()


def _all_codecs(codecs: Any) -> list[Any]:
    found = []
    for codec in codecs:
        found.append(codec)
        if isinstance(codec, ShardingCodec):
            found += _all_codecs(codec.codecs) + _all_codecs(codec.index_codecs)
    return found
