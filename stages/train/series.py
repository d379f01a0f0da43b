"""How a seed's resources went over time: samples of the meter, few enough to be kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MOST = 200
"""Samples that are kept of a seed, at most."""


class Sample(NamedTuple):
    """What the sensors have read at one moment.  None: not measured."""

    seconds: float
    """Since the seed's start."""
    phase: str
    """That ran then."""
    rss_bytes: int | None
    cpu_seconds: float
    """Of this process since the seed's start, all threads."""
    gpu_utilisation_percent: float | None = None
    gpu_memory_bytes: int | None = None


class Series:
    """A run of days takes no more room than one of seconds: whenever there are `most` samples,
    of two neighbours the one with more resident memory stays, and from then on one of twice as
    many is kept."""

    def __init__(self, most: int = MOST) -> None:
        """`most`: even."""
        self._most = most
        self._kept: list[Sample] = []
        self._best: Sample | None = None
        self._met, self._each = 0, 1

    def add(self, sample: Sample) -> None:
        self._best = _higher(self._best, sample)
        self._met += 1
        if self._met < self._each:
            return
        kept = [*self._kept, self._best]
        if len(kept) == self._most:
            kept, self._each = halved(kept), 2 * self._each
        # Another thread may be reading: it finds the old list or the new one, both whole.
        self._kept, self._best, self._met = kept, None, 0

    def samples(self) -> list[Sample]:
        """In the order of time; the last one may stand for fewer than the others."""
        best = self._best
        return [*self._kept, best] if best is not None else [*self._kept]


def halved(samples: list[Sample]) -> list[Sample]:
    """Of two neighbours the one with more resident memory; one that is left over stays."""
    pairs = (samples[k : k + 2] for k in range(0, len(samples), 2))
    return [_higher(pair[0], pair[-1]) for pair in pairs]


def joined(first: list[Sample], then: Iterable[Sample], wall: float, cpu: float) -> list[Sample]:
    """Of a seed that was interrupted and resumed: what `then` has, counted on from `wall` and
    `cpu` seconds, follows `first`; at most MOST samples."""
    later = [
        s._replace(seconds=round(s.seconds + wall, 3), cpu_seconds=round(s.cpu_seconds + cpu, 3))
        for s in then
    ]
    both = [*first, *later]
    while len(both) > MOST:
        both = halved(both)
    return both


def _higher(old: Sample | None, new: Sample) -> Sample:
    if old is None:
        return new
    return new if (new.rss_bytes or 0) > (old.rss_bytes or 0) else old
