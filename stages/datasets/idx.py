"""IDX, the file format of MNIST: a header of big-endian numbers, then bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused

_BYTES = 0x08
"""The code of the only element type that the data sets use."""
_MOST = 100_000
"""Items in a file (60,000 are published); more would be meant to fill the memory."""
_BLOCK = 1 << 20


def read_idx(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 (N, *item).  A plain file is mapped into memory, a .gz file is unpacked.

    Raises Refused: damaged, of another shape, or cut short.
    """
    try:
        return _unpack(path, item) if path.suffix == ".gz" else _map(path, item)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise Refused(f"{path} is no IDX file as published: {error}. Fetch it again.") from None


def _map(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    with path.open("rb") as handle:
        shape = _shape(handle, item)
        start = handle.tell()
    _compare(shape, path.stat().st_size - start)
    return np.memmap(path, np.uint8, "r", start, shape)


def _unpack(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    with gzip.open(path) as handle:
        shape = _shape(handle, item)
        data = bytearray(math.prod(shape))
        view, found = memoryview(data), 0
        # by blocks: a read of all at once needs the memory twice
        while count := handle.readinto(view[found : found + _BLOCK]):
            found += count
        found += len(handle.read(1))
    _compare(shape, found)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _compare(shape: tuple[int, ...], found: int) -> None:
    wanted = math.prod(shape)
    if found != wanted:
        amount = "less" if found < wanted else "more"
        raise ValueError(f"its header promises {wanted} bytes, {amount} came")


def _shape(handle: BinaryIO | gzip.GzipFile, item: tuple[int, ...]) -> tuple[int, ...]:
    """Raises ValueError: not the header of bytes in items of that shape."""
    dims = 1 + len(item)
    header = handle.read(4 + 4 * dims)
    if len(header) < 4 + 4 * dims:
        raise ValueError("it ends within its header")
    if header[:4] != bytes([0, 0, _BYTES, dims]):
        raise ValueError(f"it begins with {header[:4].hex()}, expected 00000{_BYTES}0{dims}")
    count, *rest = np.frombuffer(header, ">u4", dims, 4).tolist()
    if tuple(rest) != item:
        raise ValueError(f"its items are {tuple(rest)}, expected {item}")
    if not 0 < count <= _MOST:
        raise ValueError(f"its header promises {count} items, expected 1 to {_MOST}")
    return (count, *item)
