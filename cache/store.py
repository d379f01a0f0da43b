"""The contract that both stores fulfil, and the choice between them.

A store is created with its columns declared, takes the bulk column in whole
shards and then the side columns, and is from then on only ever read.  It is
made by one process, from parts that many may have written (parts.py).
"""

from __future__ import annotations

from collections.abc import Callable
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

    def read(self, column: str, start: int, stop: int) -> Array:
        """Rows start..stop-1.  Raises CacheDamagedError where a checksum fails."""

    def close(self) -> None: ...


def _zarr() -> tuple[Callable[[Path, Bulk], StoreWriter], Callable[[Place], StoreReader]]:
    from cache.stores.zarr_store import ZarrReader, ZarrWriter

    return ZarrWriter, ZarrReader


def _hdf5() -> tuple[Callable[[Path, Bulk], StoreWriter], Callable[[Place], StoreReader]]:
    from cache.stores.hdf5_store import Hdf5Reader, Hdf5Writer

    return Hdf5Writer, Hdf5Reader


_STORES = {"zarr": _zarr, "hdf5": _hdf5}  # imported only when used: zarr takes 0.4 s

STORES = tuple(_STORES)


def store_writer(store: str, folder: Path, bulk: Bulk) -> StoreWriter:
    return _STORES[store]()[0](folder, bulk)


def store_reader(store: str, folder: Place) -> StoreReader:
    return _STORES[store]()[1](folder)


def little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
