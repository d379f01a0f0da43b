"""Two sets of values and the difference of their means, with its 95 % interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.report.numbers.paired import paired

_ROUNDING = 1e-9
"""No difference, relative to the values."""


@dataclass(frozen=True)
class Difference:
    """b - a, in the unit of the values; bounds and p are None where there are too few values."""

    mean: float
    lower: float | None
    upper: float | None
    p: float | None
    """Of no difference, two-sided."""
    how: Literal["paired", "independent"]
    n: int
    """Pairs; of independent values the fewer ones."""
    scale: float
    """The largest value, by size."""

    @property
    def excludes_nought(self) -> bool:
        if self.lower is None or self.upper is None:
            return False
        rounding = _ROUNDING * max(self.scale, _ROUNDING)
        return self.lower > rounding or self.upper < -rounding


def of_pairs(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Over the seeds that both have, at least one: see paired.paired."""
    seeds = sorted(a.keys() & b.keys())
    x, y = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    found = paired(y, x)
    scale = max(abs(value) for value in [*x, *y])
    if found.n < 2:
        return Difference(found.mean, None, None, None, "paired", found.n, scale)
    p = _p(found.mean, found.sd / math.sqrt(found.n), found.n - 1, scale)
    return Difference(found.mean, found.lower, found.upper, p, "paired", found.n, scale)


def of_independent(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Welch 1947: variances need not be equal; degrees of freedom as Satterthwaite 1946 has them.

    mean(b) - mean(a) -+ t_{0.975, f} s, s^2 = s_a^2 / n_a + s_b^2 / n_b,
    f = s^4 / ((s_a^2 / n_a)^2 / (n_a - 1) + (s_b^2 / n_b)^2 / (n_b - 1))

    `a`, `b`: at least one value each; no interval for fewer than two of either.
    """
    mean = statistics.fmean(b) - statistics.fmean(a)
    n, scale = min(len(a), len(b)), max(abs(value) for value in [*a, *b])
    if n < 2:
        return Difference(mean, None, None, None, "independent", n, scale)
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    error = math.sqrt(va + vb)
    if error <= _ROUNDING * scale:
        freedom = float(n - 1)
    else:
        freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = _t(freedom) * error
    p = _p(mean, error, freedom, scale)
    return Difference(mean, mean - half, mean + half, p, "independent", n, scale)


def holm(found: Sequence[Difference]) -> list[bool]:
    """Which differ from 0 with at most 5 % risk of a single false one among all (Holm 1979): the
    k-th smallest of m values of p, counted from 0, must be at most 0.05 / (m - k), and so all
    before it.  What has no p is not among them."""
    places = sorted((d.p, k) for k, d in enumerate(found) if d.p is not None)
    differs = [False] * len(found)
    for rank, (p, place) in enumerate(places):
        if p > 0.05 / (len(places) - rank):
            break
        differs[place] = True
    return differs


def _t(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _p(mean: float, error: float, freedom: float, scale: float) -> float:
    """Values that do not vary differ for certain, or not at all."""
    from scipy.special import stdtr

    if error <= _ROUNDING * scale:
        return 1.0 if abs(mean) <= _ROUNDING * scale else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))
