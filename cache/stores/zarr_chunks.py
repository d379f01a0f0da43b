"""Files of a Zarr array, read without zarr: several times as fast, by several threads.

    file = [chunk] [chunk] ... [index: offset and bytes of each] [crc32c of the index]

A side column has one chunk in a file, and no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.plain import refuse_strange_file, refuse_strange_folder
from cache.source import Place
from cache.store import Array, little_endian
from cache.stores.blob import Blob, blob
from cache.stores.zarr_bounds import ArrayFile
from cache.stores.zarr_frames import SOUND, read_chunk

_NONE = np.iinfo("<u8").max
"""In an index: there is no such chunk."""
_KEPT = 64
"""Chunks in a shard whose index is kept; ours have at most as many."""

Index = NDArray[np.uint64]
"""(chunks, 2): first byte and number of bytes in the file."""


class Chunks:
    """One array in its folder."""

    def __init__(self, folder: Place, found: ArrayFile) -> None:
        self._folder, self._found = folder, found
        self._indexes: dict[int, Index] = {}
        self._dtype = little_endian(found.data_type)

    def read(self, start: int, stop: int, into: Array) -> None:
        """Rows start..stop-1 into an array of just as many, C-contiguous.

        Raises:
            CacheDamagedError: a file is no plain one, a chunk is missing, or has not its checksum
                or size.
        """
        rows = self._found.piece[0]
        for number in range(start // rows, -(-stop // rows)):
            place = self._folder / self._found.file(number)
            first, last = max(start, number * rows), min(stop, (number + 1) * rows)
            index = self._index(number, place)
            with blob(place) as file:
                self._file(file, index, number * rows, range(first, last), into[first - start :])

    def _file(self, file: Blob, index: Index, begin: int, wanted: range, into: Array) -> None:
        """Rows of one file, whose first row is `begin`."""
        rows = self._found.chunk[0]
        for chunk in range((wanted.start - begin) // rows, -(-(wanted.stop - begin) // rows)):
            first = begin + chunk * rows
            low, high = max(first, wanted.start), min(first + rows, wanted.stop)
            target = into[low - wanted.start : high - wanted.start]
            whole = high - low == rows
            room = target if whole else np.empty(self._found.chunk, dtype=self._dtype)
            offset, size = map(int, index[chunk])
            if _NONE in (offset, size):
                raise CacheDamagedError("a chunk is missing.")
            read_chunk(file, offset, size, room.reshape(-1).view(np.uint8))
            if not whole:
                target[:] = room[low - first : high - first]

    def _index(self, number: int, place: Place) -> Index:
        """Where the chunks of a file are; the file is looked at before it is read."""
        if number in self._indexes:
            return self._indexes[number]
        for folder in self._folders(place):
            refuse_strange_folder(folder)
        size = refuse_strange_file(place, self._found.most_bytes())
        index = np.array([[0, size]], dtype=np.uint64)
        if self._found.sharded:
            index = read_index(place, self._found, size)
        if len(index) <= _KEPT:
            self._indexes[number] = index
        return index

    def _folders(self, place: Place) -> Iterator[Path]:
        """Links that are folders lead elsewhere."""
        if isinstance(place, Path) and isinstance(self._folder, Path):
            inside = place.relative_to(self._folder).parents
            yield from (self._folder / part for part in reversed(inside))


def read_index(place: Place, found: ArrayFile, size: int) -> Index:
    """The index at the end of a shard of `size` bytes.

    Raises:
        CacheDamagedError: it has not its checksum; a chunk outside of the file, larger than any
            can be, missing, or within another.
    """
    count = found.piece[0] // found.chunk[0]
    begin = size - 16 * count - 4
    if begin < 0:
        raise CacheDamagedError(f"{place} is too short to hold the index of its chunks.")
    with blob(place) as file:
        raw = file.read(begin, 16 * count + 4)
    if google_crc32c.value(raw) != SOUND:
        raise CacheDamagedError(f"{place}: a checksum or size is wrong.")
    index = np.frombuffer(raw, "<u8", 2 * count).reshape(-1, 2).astype(np.uint64)
    offset, length = index[(index != _NONE).any(axis=1)].T
    order = np.argsort(offset)
    inside = (offset <= begin).all() and (length <= found.most_chunk_bytes()).all()
    ends = (offset + length)[order] if inside else offset
    if not inside or (ends > begin).any() or (offset[order][1:] < ends[:-1]).any():
        raise CacheDamagedError(f"{place} has an index that no cache of ours has; not read.")
    return index
