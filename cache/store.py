"""The contract that both stores fulfil, and the choice between them.

A store is created with its columns declared, takes the bulk column in whole
shards and then the side columns, and is from then on only ever read.  It is
made by one process, from parts that many may have written (parts.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.source import Place

Array = NDArray[Any]


@dataclass(frozen=True)
class Bulk:
    """The sharded column: its name, dtype and shape, rows first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard_rows: int

    @property
    def shards(self) -> int:
        return -(-self.shape[0] // self.shard_rows)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    def rows_of(self, shard: int) -> range:
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.shape[0]))


class StoreWriter(Protocol):
    """Fills one store in a folder."""

    def create(self) -> None:
        """Declare the bulk column, in place of whatever an interrupted run left there."""

    def write_shard(self, shard: int, rows: Array) -> None:
        """One whole shard."""

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        """All shards are there: add the side columns and close."""


class StoreReader(Protocol):
    """Reads one store; never writes."""

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        """dtype and shape as the store has them.  Raises CacheDamagedError if it has none."""

    def chunk_rows(self, column: str) -> int:
        """Rows that are checked and unpacked together: the least that can be read."""

    def read(
        self, column: str, start: int, stop: int, into: Array | None = None, *, sums: bool = True
    ) -> Array:
        """Rows start..stop-1; several threads may call it at once.

        `into`: to be filled and returned; dtype and shape are the rows', C-contiguous.  After an
        error it holds anything.  Without `sums` checksums may be left out: for one who compares
        digests of the rows, which find all that a checksum does.

        Raises:
            CacheDamagedError: a checksum fails, or something is missing.
        """

    def close(self) -> None: ...


STORES = ("zarr", "hdf5")


def store_writer(store: str, folder: Path, bulk: Bulk) -> StoreWriter:
    if store == "hdf5":  # imported only when used: zarr takes 0.4 s
        from cache.stores.hdf5_store import Hdf5Writer

        return Hdf5Writer(folder, bulk)
    from cache.stores.zarr_store import ZarrWriter

    return ZarrWriter(folder, bulk)


def store_reader(store: str, folder: Place) -> StoreReader:
    if store == "hdf5":
        from cache.stores.hdf5_store import Hdf5Reader

        return Hdf5Reader(folder)
    from cache.stores.zarr_reader import ZarrReader

    return ZarrReader(folder)


def little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
