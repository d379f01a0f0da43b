"""One HDF5 file, assembled at the end.

HDF5 has one writer and a crash can leave a file that does not open: the file
is made from the parts when all are there.  fletcher32 finds flipped bits.
Readers open read-only and without locks, which network file systems often
refuse and a published file does not need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from cache.errors import CacheDamagedError
from cache.schema import chunk_rows_for
from cache.store import Array, Bulk, little_endian

FILE = "data.h5"


class Hdf5Writer:
    def __init__(self, folder: Path, bulk: Bulk) -> None:
        self._path, self._bulk = folder / FILE, bulk

    def create(self) -> None:
        bulk = self._bulk
        self._file = h5py.File(self._path, "w")
        self._data = self._file.create_dataset(
            bulk.name,
            shape=bulk.shape,
            dtype=little_endian(bulk.dtype),
            chunks=(
                min(chunk_rows_for(bulk.shard_rows, bulk.row_bytes), bulk.shape[0]),
                *bulk.shape[1:],
            ),
            fletcher32=True,
        )

    def write_shard(self, shard: int, rows: Array) -> None:
        span = self._bulk.rows_of(shard)
        self._data[span.start : span.stop] = rows

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        for name, values in side.items():
            plain = values.astype(little_endian(values.dtype.name), copy=False)
            self._file.create_dataset(name, data=plain, chunks=values.shape, fletcher32=True)
        for key, value in attributes.items():
            self._file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
        self._file.close()


class Hdf5Reader:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._file = h5py.File(self._path, "r", locking=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise CacheDamagedError(f"{self._path} cannot be opened: {error}") from error

    def _dataset(self, column: str) -> Any:
        # A link could point out of the file: only a dataset that lies in it is read.
        try:
            link = self._file.get(column, getlink=True)
            inside = isinstance(link, h5py.HardLink)
            data = self._file[column] if inside else None
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise CacheDamagedError(f"{self._path}, column {column}: {error}") from error
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise CacheDamagedError(
                f"{self._path}: {column} is no array inside the file; not read."
            )
        self._refuse_strange(column, data)
        return data

    def _refuse_strange(self, column: str, data: Any) -> None:
        """Only our filter is run, and no more memory is taken than there are bytes on disk."""
        try:
            recipe = data.id.get_create_plist()
            filters = {recipe.get_filter(k)[0] for k in range(recipe.get_nfilters())}
            stored, size = data.id.get_storage_size(), data.nbytes
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise CacheDamagedError(f"{self._path}, column {column}: {error}") from error
        if filters - {h5py.h5z.FILTER_FLETCHER32}:
            raise CacheDamagedError(
                f"{self._path}: {column} is filtered as no cache of ours is; not read."
            )
        if stored < size:
            raise CacheDamagedError(
                f"{self._path}: {column} should have {size} bytes, {stored} are there; not read."
            )

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        data = self._dataset(column)
        return data.dtype.name, tuple(data.shape)

    def read(self, column: str, start: int, stop: int) -> Array:
        data = self._dataset(column)
        try:
            rows: Array = data[start:stop]
        except (OSError, RuntimeError, ValueError) as error:
            raise CacheDamagedError(
                f"{self._path}, column {column}, rows {start} to {stop - 1}: {error}"
            ) from error
        return rows

    def close(self) -> None:
        self._file.close()
