"""The contract that both stores fulfil, and the choice between them.

A store is created once with its columns declared, takes the bulk column in
whole shards (in any order, a shard written twice is the same shard), takes
the side columns when all shards are there, and is then only ever read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def rows_of(self, shard: int) -> range:
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.shape[0]))


class StoreWriter(Protocol):
    """Fills one store: what is to be published in one folder, parts in another."""

    def create(self) -> None:
        """Declare the bulk column; called once, before any shard."""

    def write_shard(self, shard: int, rows: Array) -> None:
        """Put one whole shard on the disk, durably."""

    def read_shard(self, shard: int) -> Array:
        """The shard as it is on the disk.  Raises OSError or ValueError if it is not whole."""

    def finish(self, side: dict[str, Array], attributes: dict[str, Any]) -> None:
        """All shards are there: add the side columns and close.  May be done twice."""


class StoreReader(Protocol):
    """Reads one store; never writes."""

    def describe(self, column: str) -> tuple[str, tuple[int, ...]]:
        """dtype and shape as the store has them.  Raises CacheDamagedError if it has none."""

    def read(self, column: str, start: int, stop: int) -> Array:
        """Rows start..stop-1.  Raises CacheDamagedError where a checksum fails."""

    def close(self) -> None: ...


def _zarr() -> tuple[Callable[[Path, Path, Bulk], StoreWriter], Callable[[Path], StoreReader]]:
    from cache.zarr_store import ZarrReader, ZarrWriter

    return ZarrWriter, ZarrReader


def _hdf5() -> tuple[Callable[[Path, Path, Bulk], StoreWriter], Callable[[Path], StoreReader]]:
    from cache.hdf5_store import Hdf5Reader, Hdf5Writer

    return Hdf5Writer, Hdf5Reader


_STORES = {"zarr": _zarr, "hdf5": _hdf5}  # imported only when used: zarr takes 0.4 s

STORES = tuple(_STORES)


def store_writer(store: str, folder: Path, work: Path, bulk: Bulk) -> StoreWriter:
    """A store in `folder`, with `work` for what is not to be published."""
    return _STORES[store]()[0](folder, work, bulk)


def store_reader(store: str, folder: Path) -> StoreReader:
    return _STORES[store]()[1](folder)


def little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
