"""The chunks of an HDF5 dataset, read without libhdf5's lock: by several threads at once.

libhdf5 says where the chunks lie, once; they are read from its own open file, and their
checksums, four bytes behind each, are computed by numpy, five times as fast.

    chunk = [rows] [fletcher32 of them, little-endian]
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheDamagedError
from cache.store import Array
from cache.stores.blob import Blob

_CHECKSUM = 4  # bytes
_COLUMNS = 2048
_MOST_CHUNK = 1 << 27
"""Bytes of a chunk that are summed up here without overflow; side columns can be larger."""


def fletcher32(data: NDArray[np.uint8]) -> int:
    """As libhdf5 computes it; `data`: uint8, at most 2**27 of them, an even number.

    The words are big-endian: w_0 .. w_n-1, a = sum of w_i, b = sum of (n - i) * w_i, both modulo
    65535, where 256 swaps the bytes of a word.  So sums over rows and columns of words are enough.

    >>> hex(fletcher32(np.frombuffer(b"abcdef", dtype=np.uint8)))
    '0x50562a2d'
    """
    words = data.view("<u2")
    whole = len(words) // _COLUMNS * _COLUMNS
    table, rest = words[:whole].reshape(-1, _COLUMNS), words[whole:].astype(np.uint64)
    rows = np.add.reduce(table, axis=1, dtype=np.uint32).astype(np.uint64)
    columns = np.add.reduce(table, axis=0, dtype=np.uint32).astype(np.uint64)
    columns[: len(rest)] += rest
    rows = np.append(rows, rest.sum(dtype=np.uint64))
    total = int(rows.sum())
    places = _COLUMNS * _weighted(rows) + _weighted(columns)
    return _folded(len(words) * total - places) << 16 | _folded(total)


def _weighted(sums: NDArray[np.uint64]) -> int:
    """Sum of i * sums[i]."""
    return int((np.arange(len(sums), dtype=np.uint64) * sums).sum())


def _folded(total: int) -> int:
    """Of big-endian words, modulo 65535, of which libhdf5 makes 0 only where all words are."""
    return ((256 * total - 1) % 0xFFFF) + 1 if total else 0


class Chunks:
    """A dataset with fletcher32 and whole rows in each chunk."""

    def __init__(self, data: Any, file: Blob) -> None:
        """Raises CacheDamagedError: chunks that are not as large as all are, or too many."""
        self._file, self._dtype, self._shape = file, data.dtype, data.chunks
        self._size = math.prod(self._shape) * self._dtype.itemsize
        self._offsets = _offsets(data, self._size + _CHECKSUM)

    def read(self, start: int, stop: int, into: Array, sums: bool) -> None:
        """Rows start..stop-1 into an array of just as many, C-contiguous; `sums`: see StoreReader.

        Raises:
            CacheDamagedError: a chunk is missing or has not its checksum.
        """
        rows = self._shape[0]
        chunk, end = start // rows, -(-stop // rows)
        while chunk < end:
            first = chunk * rows
            low, high = max(first, start), min(first + rows, stop)
            count = 1
            if high - low == rows:
                count = self._neighbours(chunk, stop // rows)
                high = low + count * rows
            target = into[low - start : high - start]
            whole = len(target) == count * rows
            room = target if whole else np.empty(self._shape, dtype=self._dtype)
            self._fill(int(self._offsets[chunk]), room.reshape(count, -1).view(np.uint8), sums)
            if not whole:
                target[:] = room[low - first : high - first]
            chunk += count

    def _neighbours(self, chunk: int, end: int) -> int:
        """How many chunks before `end`, this one included, follow one another in the file."""
        others = np.flatnonzero(np.diff(self._offsets[chunk:end]) != self._size + _CHECKSUM)
        return int(others[0]) + 1 if len(others) else end - chunk

    def _fill(self, offset: int, rooms: NDArray[np.uint8], sums: bool) -> None:
        """Chunks one after the other, (chunks, bytes), with one call."""
        if offset < 0:
            raise CacheDamagedError("a chunk is missing.")
        stored = np.empty((len(rooms), _CHECKSUM), dtype=np.uint8)
        pieces = [piece for both in zip(rooms, stored, strict=True) for piece in both]
        if not self._file.fill(offset, pieces):
            raise CacheDamagedError("the file ends within a chunk.")
        found = stored.view("<u4")[:, 0].tolist()
        if sums and found != [fletcher32(room) for room in rooms]:
            raise CacheDamagedError("a checksum is wrong.")


def readable(data: Any) -> bool:
    """Whether `Chunks` reads a dataset: all that are written here; libhdf5 reads what else there
    may be."""
    recipe = data.id.get_create_plist()
    checked = [recipe.get_filter(k)[0] for k in range(recipe.get_nfilters())]
    if data.chunks is None or checked != [h5py.h5z.FILTER_FLETCHER32]:
        return False
    size = math.prod(data.chunks) * data.dtype.itemsize
    whole: bool = data.chunks[1:] == data.shape[1:] and data.file.userblock_size == 0
    return whole and size % 2 == 0 and size <= _MOST_CHUNK


def _offsets(data: Any, size: int) -> NDArray[np.int64]:
    """First byte of each chunk in the file, -1 where there is none."""
    count = -(-data.shape[0] // data.chunks[0])
    offsets = np.full(count, -1, dtype=np.int64)
    seen = 0

    def note(chunk: Any) -> bool | None:
        nonlocal seen
        seen += 1
        row, *rest = chunk.chunk_offset
        odd = chunk.size != size or chunk.filter_mask or any(rest) or row >= data.shape[0]
        if odd or row % data.chunks[0] or seen > count:
            return True  # ends the walk
        offsets[row // data.chunks[0]] = chunk.byte_offset
        return None

    if data.id.chunk_iter(note) is not None:
        raise CacheDamagedError("it has chunks that no cache of ours has; not read.")
    return offsets
