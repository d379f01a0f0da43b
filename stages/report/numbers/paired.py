"""The comparison of two strategies over the seeds that both were run with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stages.report.reading.runs import NONE, Study

_ROUNDING = 1e-9
"""No difference of accuracies."""


class Paired(NamedTuple):
    """Mean of n differences, and the 95 % interval of that mean.  In the unit of the values."""

    mean: float
    sd: float
    """Sample standard deviation of the differences (n - 1); NaN for n < 2."""
    n: int
    lower: float
    upper: float

    @property
    def better(self) -> bool:
        """Beyond the spread.  False for n < 2: nothing is shown then."""
        return self.lower > _ROUNDING


def over_none(study: Study) -> dict[str, Paired]:
    """Accuracy of each strategy less that of none, a fraction, over the seeds of both; in the
    order of the study's runs.  n is 0 where they have no seed in common; empty without none."""
    none = study.run_of(NONE)
    if none is None:
        return {}
    base = {seed.seed: seed.average_accuracy for seed in none.runs}
    found = {}
    for run in study.runs:
        if run is not none:
            both = [seed for seed in run.runs if seed.seed in base]
            accuracies = [seed.average_accuracy for seed in both]
            found[run.label] = paired(accuracies, [base[seed.seed] for seed in both])
    return found


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """d = a - b seed by seed: mean(d) -+ t_{0.975, n-1} sd(d) / sqrt(n).

    `a`, `b` (n,): the same figure of two strategies, place k from the same seed in both (same
    class order, split and initialisation), which takes what seeds have in common out of the
    spread.  Student 1908.  Supposes that differences are about normal and tells nothing of
    other data sets; bounds may leave the range of the values.  NaN bounds for n < 2, NaN mean
    for n = 0.  A NaN in `a` or `b` makes all but n NaN: no seed is dropped silently.

    >>> paired([0.75, 1.0, 0.5], [0.5, 0.5, 0.5])[:3]
    (0.25, 0.25, 3)
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"Pairs need two vectors of one length, got shapes {x.shape} and {y.shape}: "
            "give one value per seed, of the same seeds in the same order."
        )
    d, n = x - y, len(x)
    mean = float(d.mean()) if n else math.nan
    if n < 2:
        return Paired(mean, math.nan, n, math.nan, math.nan)
    sd = float(d.std(ddof=1))
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Paired(mean, sd, n, mean - half, mean + half)


def t_quantile(freedom: int, within: float = 0.95) -> float:
    """The t > 0 for which P(|T| <= t) = `within`; T is Student's, of `freedom` >= 1 degrees.

    P is an elementary function of theta = atan(t / sqrt(freedom)) (Abramowitz & Stegun 1964,
    26.7.3 and 26.7.4) and rises with it, so bisection finds theta: no table, no scipy.
    """
    if freedom < 1 or not 0 < within < 1:
        raise ValueError(
            f"Required freedom >= 1 and 0 < within < 1, got {freedom} and {within}: "
            "an interval needs at least two values."
        )
    low, high = 0.0, math.pi / 2
    while low < (theta := (low + high) / 2) < high:
        low, high = (theta, high) if _t_within(theta, freedom) < within else (low, theta)
    return math.sqrt(freedom) * math.tan(high)


def _t_within(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(theta)), `freedom` a whole number.

    odd:  2/pi (theta + sin (cos + 2/3 cos^3 + 2/3 4/5 cos^5 + ...))
    even: sin (1 + 1/2 cos^2 + 1/2 3/4 cos^4 + ...), both up to cos^(freedom - 2)
    """
    odd = freedom % 2
    term, total = math.cos(theta) if odd else 1.0, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(theta) ** 2
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
