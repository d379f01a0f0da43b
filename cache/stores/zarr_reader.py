"""Read a Zarr v3 folder of ours; zarr itself, which takes 0.4 s to import, is not needed."""

from __future__ import annotations

import numpy as np

from cache.errors import CacheDamagedError
from cache.plain import read_plain, refuse_strange_folder
from cache.source import Place
from cache.store import Array, little_endian
from cache.stores.zarr_bounds import FILE_LIMIT, ArrayFile, array_file
from cache.stores.zarr_chunks import Chunks

FOLDER = "data.zarr"


class ZarrReader:
    def __init__(self, folder: Place) -> None:
        self._path = folder / FOLDER
        refuse_strange_folder(self._path)
        self._arrays: dict[str, tuple[ArrayFile, Chunks]] = {}

    def _array(self, column: str) -> tuple[ArrayFile, Chunks]:
        if column not in self._arrays:
            path = self._path / column
            refuse_strange_folder(path)
            found = array_file(read_plain(path / "zarr.json", FILE_LIMIT), path / "zarr.json")
            self._arrays[column] = found, Chunks(path, found)
        return self._arrays[column]

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        found, _ = self._array(column)
        return found.data_type, found.shape

    def chunk_rows(self, column: str) -> int:
        return self._array(column)[0].chunk[0]

    def read(
        self, column: str, start: int, stop: int, into: Array | None = None, *, sums: bool = True
    ) -> Array:
        found, chunks = self._array(column)
        if into is None:
            into = np.empty((stop - start, *found.shape[1:]), little_endian(found.data_type))
        try:
            chunks.read(start, stop, into, sums)
        except (CacheDamagedError, OSError) as error:
            what = error if isinstance(error, CacheDamagedError) else error.strerror
            raise CacheDamagedError(
                f"{self._path / column}, rows {start} to {stop - 1}: {what}"
            ) from error
        return into

    def close(self) -> None:
        self._arrays.clear()
