"""A file, read at given places by several threads at once: they share no position in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.source import Place

_MOST_AT_ONCE = 1024
"""Arrays that a call of the system fills."""


class Blob:
    """An open file, or bytes in memory."""

    def __init__(self, source: int | bytes) -> None:
        """`source`: a file descriptor, which stays whoever's it is, or the bytes."""
        self._source = source

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer where the file ends."""
        if isinstance(self._source, bytes):
            return self._source[offset : offset + size]
        found = os.pread(self._source, size, offset)
        while 0 < len(found) < size:  # one call gives 2 GB at most, and less where it is stopped
            more = os.pread(self._source, size - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    def fill(self, offset: int, into: Sequence[NDArray[np.uint8]]) -> bool:
        """What follows `offset`, into one array after the other; False where the file ends."""
        left = [each.data for each in into]
        while left:
            count = self._some(offset, left[:_MOST_AT_ONCE])
            if not count:
                return False
            offset += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
        return True

    def _some(self, offset: int, into: list[memoryview]) -> int:
        if not isinstance(self._source, bytes):
            return os.preadv(self._source, into, offset)
        found = memoryview(self._source)[offset : offset + len(into[0])]
        into[0][: len(found)] = found
        return len(found)


@contextmanager
def blob(place: Place) -> Iterator[Blob]:
    """Raises OSError."""
    if not isinstance(place, Path):
        yield Blob(place.read_bytes())
        return
    number = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Blob(number)
    finally:
        os.close(number)
