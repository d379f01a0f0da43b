"""Zarr v3 folder: one file per shard, checksummed chunks inside.

Evidence for the settings: a plain zstd shard with a flipped bit reads back
wrong without an error, crc32c inside finds it; chunks never written read
back as zeros, so completeness is the manifest's business, not the folder's.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore, StorePath

from cache.errors import CacheDamagedError
from cache.plain import read_plain, refuse_strange_folder
from cache.schema import chunk_rows_for, side_rows_for
from cache.source import Place
from cache.store import Array, Bulk, little_endian
from cache.stores.zarr_bounds import FILE_LIMIT, ArrayFile, array_file, refuse_strange_files

# Where one chunk of several fails, zarr leaves the others to asyncio, which logs their tracebacks.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

FOLDER = "data.zarr"
_COMPRESSORS = (ZstdCodec(level=3), Crc32cCodec())
"""Readers take no others (zarr_bounds.py)."""


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
                chunks=(side_rows_for(len(values)), *values.shape[1:]),
                compressors=_COMPRESSORS,
                config={"write_empty_chunks": True},
            )
            array[:] = values
        group.attrs.update(attributes)


def _opened(folder: Place, found: ArrayFile) -> Any:
    """The array in `folder`, described by what was found to be in order."""
    store: Store
    if isinstance(folder, Path):
        store = LocalStore(folder, read_only=True)
    else:
        files = folder.files().items()
        held: dict[str, Buffer] = {name: cpu.Buffer.from_bytes(data) for name, data in files}
        store = MemoryStore(held, read_only=True)
    metadata: Any = found.metadata()
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(store)))


class ZarrReader:
    def __init__(self, folder: Place) -> None:
        self._path = folder / FOLDER
        refuse_strange_folder(self._path)
        self._arrays: dict[str, tuple[ArrayFile, Any]] = {}

    def _array(self, column: str) -> tuple[ArrayFile, Any]:
        if column not in self._arrays:
            path = self._path / column
            refuse_strange_folder(path)
            found = array_file(read_plain(path / "zarr.json", FILE_LIMIT), path / "zarr.json")
            self._arrays[column] = found, _opened(path, found)
        return self._arrays[column]

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        found, _ = self._array(column)
        return found.data_type, found.shape

    def read(self, column: str, start: int, stop: int) -> Array:
        found, array = self._array(column)
        refuse_strange_files(self._path / column, found, start, stop)
        try:
            rows: Array = array[start:stop]
        except MemoryError:
            raise
        except Exception as error:  # checksum, truncation, missing index: all mean damage
            # zarr would repeat bytes of the file, which a link may have led to
            what = error if isinstance(error, CacheDamagedError) else "a checksum or size is wrong."
            raise CacheDamagedError(
                f"{self._path / column}, rows {start} to {stop - 1}: {what}"
            ) from error
        return rows

    def close(self) -> None:
        self._arrays.clear()
