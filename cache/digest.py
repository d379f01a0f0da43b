"""Digests of rows and columns, the same whichever store holds them."""

from __future__ import annotations

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cache.source import Place

DIGEST_BYTES = 32


def row_digests(rows: NDArray[np.generic]) -> NDArray[np.uint8]:
    """blake3 of each row's bytes (little-endian, C order): uint8 (N, 32)."""
    flat = _bytes(rows).data
    size = len(flat) // max(len(rows), 1)
    each = (flat[start : start + size] for start in range(0, len(flat), max(size, 1)))
    found = bytearray().join([blake3(row).digest() for row in each])
    return np.frombuffer(found, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def hex_digests(rows: NDArray[np.generic]) -> list[str]:
    """`row_digests` as hexadecimal text."""
    return [digest.tobytes().hex() for digest in row_digests(rows)]


def column_digest(column: NDArray[np.generic]) -> str:
    """`blake3:` and the digest of a whole column's bytes."""
    return f"blake3:{blake3(_bytes(column).data).hexdigest()}"


class ColumnDigest:
    """`column_digest` of a column whose rows come piece by piece."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def add(self, rows: NDArray[np.generic]) -> None:
        self._hasher.update(_bytes(rows).data)

    def digest(self) -> str:
        return f"blake3:{self._hasher.hexdigest()}"


def _bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The same memory as flat little-endian bytes, copied only where it must be."""
    plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return plain.reshape(-1).view(np.uint8)


def bytes_digest(data: bytes) -> str:
    """`blake3:` and the digest."""
    return f"blake3:{blake3(data).hexdigest()}"


def file_digest(path: Place) -> str:
    """`blake3:` and the digest of a file's bytes."""
    hasher = blake3()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            hasher.update(block)
    return f"blake3:{hasher.hexdigest()}"


def text_digest(text: str) -> str:
    return bytes_digest(text.encode())


class TextDigest:
    """`text_digest` of a text that comes piece by piece."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def add(self, piece: str) -> None:
        self._hasher.update(piece.encode())

    def digest(self) -> str:
        return f"blake3:{self._hasher.hexdigest()}"
