"""Figures of merit from the R matrix, and the comparison of two strategies over seeds.

R[i, j] is the accuracy on task j's test rows after learning task i (0-based
here), NaN where it was not evaluated.  T tasks.  All values are fractions.
What is read off a confusion matrix is in confusion.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


def average_accuracy(r: Matrix) -> float:
    """ACC = 1/T sum_j R[T-1, j]: mean accuracy over all tasks at the end (LGR, eq. in IV-D)."""
    return float(r[-1].mean())


def average_incremental_accuracy(r: Matrix) -> float:
    """AIA = 1/T sum_i A_i, A_i = 1/(i+1) sum_{j<=i} R[i, j]; in [0, 1].

    Rebuffi et al. 2017 (iCaRL), Douillard et al. 2020 (PODNet).  The first task counts;
    some papers leave it out.  Tasks weigh alike within A_i: for tasks of unequal size this is
    not the accuracy over all rows seen, which iCaRL averages.  What lies above the diagonal
    is not read.  NaN where an earlier row was not evaluated.
    """
    return float(np.mean([r[i, : i + 1].mean() for i in range(len(r))]))


def learning_accuracy(r: Matrix) -> float:
    """LA = 1/T sum_i R[i, i]: each task as it was just learnt; in [0, 1].

    Riemer et al. 2019 (MER).  Tells a strategy that does not learn from one that
    forgets: ACC = LA + (T-1)/T BWT.  NaN where a task was not evaluated then.
    """
    return float(np.diag(r).mean())


def forgetting(r: Matrix) -> float:
    """F = 1/(T-1) sum_{j<T-1} (max_{l<T-1} R[l, j] - R[T-1, j]).

    Chaudhry et al. 2018: the best that was ever known of a task, less what is
    left at the end; the last task is left out.  May be negative.  NaN for one
    task, or where only the last row was evaluated.
    """
    if len(r) < 2:
        return math.nan
    earlier = r[:-1, :-1]
    learnt = np.tril(np.ones(earlier.shape, dtype=bool))  # only rows since the task was met
    best = np.where(learnt, earlier, -np.inf).max(axis=0)
    return float(np.mean(best - r[-1, :-1])) if np.isfinite(best).all() else math.nan


def backward_transfer(r: Matrix) -> float:
    """BWT = 1/(T-1) sum_{j<T-1} (R[T-1, j] - R[j, j]).  Lopez-Paz & Ranzato 2017."""
    if len(r) < 2:
        return math.nan
    return float(np.mean(r[-1, :-1] - np.diag(r)[:-1]))


def forward_transfer(r: Matrix, untrained: NDArray[np.float64]) -> float:
    """FWT = 1/(T-1) sum_{j>0} (R[j-1, j] - b[j]).  Lopez-Paz & Ranzato 2017.

    `untrained` (T,) is b: the accuracy on each task of the network as it was
    initialised.  NaN for one task, or where unseen tasks were not evaluated.
    """
    if len(r) < 2:
        return math.nan
    return float(np.mean(np.diag(r, 1) - untrained[1:]))


class Paired(NamedTuple):
    """Mean of n differences, and the 95 % interval of that mean.  In the unit of the values."""

    mean: float
    sd: float
    """Sample standard deviation of the differences (n - 1); NaN for n < 2."""
    n: int
    lower: float
    upper: float


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
