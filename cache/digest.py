"""Digests of rows and columns, the same whichever store holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

DIGEST_BYTES = 32


def row_digests(rows: NDArray[np.generic]) -> NDArray[np.uint8]:
    """blake3 of each row's bytes (little-endian, C order): uint8 (N, 32)."""
    out = np.empty((len(rows), DIGEST_BYTES), dtype=np.uint8)
    for index, row in enumerate(_bytes(rows).reshape(len(rows), -1) if len(rows) else ()):
        out[index] = np.frombuffer(blake3(row.data).digest(), dtype=np.uint8)
    return out


def hex_digests(rows: NDArray[np.generic]) -> list[str]:
    """`row_digests` as hexadecimal text."""
    return [digest.tobytes().hex() for digest in row_digests(rows)]


def column_digest(column: NDArray[np.generic]) -> str:
    """`blake3:` and the digest of a whole column's bytes."""
    return f"blake3:{blake3(_bytes(column).data).hexdigest()}"


def _bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The same memory as flat little-endian bytes, copied only where it must be."""
    plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return plain.reshape(-1).view(np.uint8)


def bytes_digest(data: bytes) -> str:
    """`blake3:` and the digest."""
    return f"blake3:{blake3(data).hexdigest()}"


def file_digest(path: Path) -> str:
    """`blake3:` and the digest of a file's bytes."""
    hasher = blake3()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            hasher.update(block)
    return f"blake3:{hasher.hexdigest()}"


def text_digest(text: str) -> str:
    return bytes_digest(text.encode())
