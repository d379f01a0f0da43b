"""One HDF5 file, assembled at the end.

HDF5 has one writer and a crash can leave a file that does not open, so shards
are parts (`parts/00000.npy`) until all are there; then one process assembles
the file.  fletcher32 finds flipped bits.  Readers open read-only and without
locks, which network file systems often refuse and a published file does not
need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.errors import CacheDamagedError
from cache.files import sync, write_atomically
from cache.schema import CHUNK_ROWS
from cache.store import Array, Bulk, little_endian

FILE = "data.h5"


class Hdf5Writer:
    def __init__(self, folder: Path, work: Path, bulk: Bulk) -> None:
        self._folder, self._parts, self._bulk = folder, work / "parts", bulk

    def _part(self, shard: int) -> Path:
        return self._parts / f"{shard:05d}.npy"

    def create(self) -> None:
        self._parts.mkdir(exist_ok=True)

    def write_shard(self, shard: int, rows: Array) -> None:
        plain = np.ascontiguousarray(rows, dtype=little_endian(self._bulk.dtype))
        write_atomically(self._part(shard), lambda handle: np.save(handle, plain))

    def read_shard(self, shard: int) -> Array:
        part: Array = np.load(self._part(shard), allow_pickle=False)
        return part

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        bulk = self._bulk
        path = self._folder / FILE
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                bulk.name,
                shape=bulk.shape,
                dtype=little_endian(bulk.dtype),
                chunks=(min(CHUNK_ROWS, bulk.shape[0]), *bulk.shape[1:]),
                fletcher32=True,
            )
            for shard in range(bulk.shards):
                span = bulk.rows_of(shard)
                data[span.start : span.stop] = self.read_shard(shard)
            for name, values in side.items():
                plain = values.astype(little_endian(values.dtype.name), copy=False)
                file.create_dataset(name, data=plain, chunks=values.shape, fletcher32=True)
            for key, value in attributes.items():
                file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
        sync(path)


class Hdf5Reader:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._file = h5py.File(self._path, "r", locking=False)
        except OSError as error:
            raise CacheDamagedError(f"{self._path} cannot be opened: {error}") from error

    def _dataset(self, column: str) -> Any:
        # A link could point out of the file: only a dataset that lies in it is read.
        try:
            link = self._file.get(column, getlink=True)
            inside = isinstance(link, h5py.HardLink)
            data = self._file[column] if inside else None
        except (KeyError, OSError, RuntimeError) as error:
            raise CacheDamagedError(f"{self._path}, column {column}: {error}") from error
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise CacheDamagedError(
                f"{self._path}: {column} is no array inside the file; not read."
            )
        return data

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        data = self._dataset(column)
        return data.dtype.name, tuple(data.shape)

    def read(self, column: str, start: int, stop: int) -> Array:
        data = self._dataset(column)
        try:
            rows: Array = data[start:stop]
        except (OSError, RuntimeError) as error:
            raise CacheDamagedError(
                f"{self._path}, column {column}, rows {start} to {stop - 1}: {error}"
            ) from error
        return rows

    def close(self) -> None:
        self._file.close()
