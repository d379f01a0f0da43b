"""Files of a Zarr array, read without zarr: several times as fast, a run of chunks with one call.

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
from cache.stores.zarr_frames import SOUND, read_chunks

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
        self._plain: set[Path] = set()
        self._dtype = little_endian(found.data_type)

    def read(self, start: int, stop: int, into: Array, sums: bool) -> None:
        """Rows start..stop-1 into an array of just as many, C-contiguous; `sums`: see StoreReader.

        Raises:
            CacheDamagedError: a file is no plain one, a chunk is missing, or has not its checksum
                or size.
        """
        rows = self._found.piece[0]
        for number in range(start // rows, -(-stop // rows)):
            place = self._folder / self._found.file(number)
            first, last = max(start, number * rows), min(stop, (number + 1) * rows)
            size = 0 if number in self._indexes else self._looked_at(place)
            with blob(place) as file:
                index = self._index(number, place, file, size)
                self._file(
                    file, index, number * rows, range(first, last), into[first - start :], sums
                )

    def _file(
        self, file: Blob, index: Index, begin: int, wanted: range, into: Array, sums: bool
    ) -> None:
        """Rows of one file, whose first row is `begin`."""
        rows = self._found.chunk[0]
        chunk, stop = (wanted.start - begin) // rows, -(-(wanted.stop - begin) // rows)
        while chunk < stop:
            first = begin + chunk * rows
            low, high = max(first, wanted.start), min(first + rows, wanted.stop)
            count = 1
            if high - low == rows:
                whole = (wanted.stop - first) // rows
                count = neighbours(index[chunk : chunk + whole])
                high = low + count * rows
            target = into[low - wanted.start : high - wanted.start]
            self._run(file, index[chunk], count, low - first, target, sums)
            chunk += count

    def _run(
        self, file: Blob, place: Index, count: int, skipped: int, target: Array, sums: bool
    ) -> None:
        """Whole chunks that lie one after the other, or rows of one, but for the first few."""
        offset, size = map(int, place)
        if _NONE in (offset, size):
            raise CacheDamagedError("a chunk is missing.")
        rows = self._found.chunk[0]
        whole = len(target) == count * rows
        room = target if whole else np.empty(self._found.chunk, dtype=self._dtype)
        read_chunks(file, offset, size, room.reshape(count, -1).view(np.uint8), sums)
        if not whole:
            target[:] = room[skipped : skipped + len(target)]

    def _looked_at(self, place: Place) -> int:
        """Bytes of a file that may be opened."""
        for folder in self._folders(place):
            refuse_strange_folder(folder)
            self._plain.add(folder)
        return refuse_strange_file(place, self._found.most_bytes())

    def _index(self, number: int, place: Place, file: Blob, size: int) -> Index:
        """Where the chunks of a file of `size` bytes are."""
        if number in self._indexes:
            return self._indexes[number]
        index = np.array([[0, size]], dtype=np.uint64)
        if self._found.sharded:
            index = read_index(place, file, self._found, size)
        if len(index) <= _KEPT:
            self._indexes[number] = index
        return index

    def _folders(self, place: Place) -> Iterator[Path]:
        """Links that are folders lead elsewhere; those that were looked at are not again."""
        if isinstance(place, Path) and isinstance(self._folder, Path):
            for part in reversed(place.relative_to(self._folder).parents):
                if (folder := self._folder / part) not in self._plain:
                    yield folder


def neighbours(index: Index) -> int:
    """How many of the chunks, the first included, are of one size and follow one another.

    >>> neighbours(np.array([[0, 7], [7, 7], [14, 7], [22, 7]], dtype=np.uint64))
    3
    """
    steps = np.diff(index[:, 0].astype(np.int64))
    others = np.flatnonzero((index[1:, 1] != index[0, 1]) | (steps != index[0, 1].astype(np.int64)))
    return int(others[0]) + 1 if len(others) else len(index)


def read_index(place: Place, file: Blob, found: ArrayFile, size: int) -> Index:
    """The index at the end of a shard of `size` bytes.

    Raises:
        CacheDamagedError: it has not its checksum; a chunk outside of the file, larger than any
            can be, missing, or within another.
    """
    count = found.piece[0] // found.chunk[0]
    begin = size - 16 * count - 4
    if begin < 0:
        raise CacheDamagedError(f"{place} is too short to hold the index of its chunks.")
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
