"""One HDF5 file, assembled at the end.

HDF5 has one writer and a crash can leave a file that does not open: the file
is made from the parts when all are there.  fletcher32 finds flipped bits.
Readers open read-only and without locks, which network file systems often
refuse and a published file does not need.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.errors import CacheDamagedError
from cache.limits import DTYPES
from cache.plain import refuse_strange_file
from cache.printable import printable
from cache.schema import chunk_rows_for, side_rows_for
from cache.source import Place
from cache.store import Array, Bulk, little_endian
from cache.stores.blob import Blob
from cache.stores.hdf5_chunks import Chunks, readable
from cache.stores.hdf5_sink import Sink

FILE = "data.h5"


class Hdf5Writer:
    def __init__(self, folder: Path, bulk: Bulk) -> None:
        self._path, self._bulk = folder / FILE, bulk

    def create(self) -> None:
        bulk = self._bulk
        self._sink = Sink(self._path)
        self._file = h5py.File(self._sink, "w")
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
        self._sink.raise_failure()

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        for name, values in side.items():
            plain = values.astype(little_endian(values.dtype.name), copy=False)
            chunks = (side_rows_for(len(plain)), *plain.shape[1:])
            self._file.create_dataset(name, data=plain, chunks=chunks, fletcher32=True)
        for key, value in attributes.items():
            self._file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
        self._file.close()
        self._sink.close()
        self._sink.raise_failure()


def _opened(path: Place) -> Any:
    if isinstance(path, Path):
        return h5py.File(path, "r", locking=False)
    return h5py.File(path.open("rb"), "r")  # of bytes in memory; a name in it opens no file


def _source(path: Place, file: Any) -> int | bytes:
    """The very file that libhdf5 has open."""
    return int(file.id.get_vfd_handle()) if isinstance(path, Path) else path.read_bytes()


class Hdf5Reader:
    def __init__(self, folder: Place) -> None:
        self._path = folder / FILE
        self._bytes = refuse_strange_file(self._path, sys.maxsize)
        try:
            self._file = _opened(self._path)
        except Exception as error:  # h5py raises many kinds for a broken file
            raise CacheDamagedError(f"{self._path} cannot be opened: {printable(error)}") from error
        self._sound: dict[str, Any] = {}
        self._chunks: dict[str, Chunks | None] = {}
        self._blob = Blob(_source(self._path, self._file))

    def _dataset(self, column: str) -> Any:
        if column not in self._sound:
            try:
                self._sound[column] = self._checked(column)
            except CacheDamagedError:
                raise
            except Exception as error:
                raise CacheDamagedError(
                    f"{self._path}, column {column}: {printable(error)}"
                ) from error
        return self._sound[column]

    def _checked(self, column: str) -> Any:
        """The dataset, if nothing in it leads out of the file, runs code, or takes more memory
        than there are bytes on disk.  The order counts: to ask a virtual one for its shape opens
        other files."""
        inside = isinstance(self._file.get(column, getlink=True), h5py.HardLink)
        data = self._file[column] if inside else None
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise CacheDamagedError(
                f"{self._path}: {column} is no array inside the file; not read."
            )
        kind = data.id.get_type()
        if not any(kind.equal(h5py.h5t.py_create(little_endian(name))) for name in DTYPES):
            raise CacheDamagedError(
                f"{self._path}: {column} holds what no cache of ours holds "
                f"({type(kind).__name__}); not read."
            )
        recipe = data.id.get_create_plist()
        filters = {recipe.get_filter(k)[0] for k in range(recipe.get_nfilters())}
        if filters - {h5py.h5z.FILTER_FLETCHER32}:
            raise CacheDamagedError(
                f"{self._path}: {column} is filtered as no cache of ours is; not read."
            )
        self._refuse_absurd(column, data)
        return data

    def _refuse_absurd(self, column: str, data: Any) -> None:
        shape, chunks = data.shape, data.chunks
        if not shape or data.maxshape != shape or (chunks and any(np.greater(chunks, shape))):
            raise CacheDamagedError(
                f"{self._path}: {column} of {shape} is cut into {chunks}, or could grow; not read."
            )
        size, stored = math.prod(shape) * data.dtype.itemsize, data.id.get_storage_size()
        if min(stored, self._bytes) < size:  # parts of a file may be counted more than once
            raise CacheDamagedError(
                f"{self._path}: {column} should have {size} bytes, {min(stored, self._bytes)} are "
                "there; not read."
            )

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        data = self._dataset(column)
        return data.dtype.name, tuple(data.shape)

    def chunk_rows(self, column: str) -> int:
        data = self._dataset(column)
        return int(data.chunks[0] if data.chunks else data.shape[0])

    def read(
        self, column: str, start: int, stop: int, into: Array | None = None, *, sums: bool = True
    ) -> Array:
        data = self._dataset(column)
        if into is None:
            into = np.empty((stop - start, *data.shape[1:]), data.dtype)
        try:
            chunks = self._direct(column, data)
            if chunks is None:
                data.read_direct(into, np.s_[start:stop])
            else:
                chunks.read(start, stop, into, sums)
        except MemoryError:
            raise
        except Exception as error:
            raise CacheDamagedError(
                f"{self._path}, column {column}, rows {start} to {stop - 1}: {printable(error)}"
            ) from error
        return into

    def _direct(self, column: str, data: Any) -> Chunks | None:
        if column not in self._chunks:
            self._chunks[column] = Chunks(data, self._blob) if readable(data) else None
        return self._chunks[column]

    def close(self) -> None:
        self._sound.clear()
        self._chunks.clear()
        self._file.close()
