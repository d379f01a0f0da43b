"""Where the crops come from: a finished cache, or a run that is just making them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.reader import Cache
from stages.extract.faces import USABLE


@dataclass(frozen=True)
class CropUnit:
    """The crops of one unit of work."""

    index: int
    pixels: NDArray[np.uint8]
    """(k, size, size, 3) RGB."""
    status: NDArray[np.uint8]
    """(k,), see faces.Status."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(k,): a latent is made of these."""
        return np.isin(self.status, USABLE)


class CropSource(Protocol):
    """What the root reads."""

    def split(self) -> NDArray[np.uint8]:
        """Column `split`, one value for each crop."""

    def units(self, wanted: Sequence[int]) -> Iterator[CropUnit]:
        """These units, in order."""

    def stop(self) -> None:
        """Give up, from another thread."""


class CachedCrops:
    """The crops of a finished cache; a unit is one of its shards."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._status = cache.side("status")

    def split(self) -> NDArray[np.uint8]:
        return self._cache.side("split")

    def units(self, wanted: Sequence[int]) -> Iterator[CropUnit]:
        size = self._cache.manifest.shard_rows
        for unit in wanted:
            start, stop = unit * size, min((unit + 1) * size, self._cache.manifest.rows)
            yield CropUnit(unit, self._cache.bulk_rows(start, stop), self._status[start:stop])

    def stop(self) -> None:
        """Nothing is waited for."""


def usable_rows(crops: Cache) -> NDArray[np.int64]:
    """Rows of a crop cache of which a latent is made, int64."""
    return np.flatnonzero(np.isin(crops.side("status"), USABLE))
