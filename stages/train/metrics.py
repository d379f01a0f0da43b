"""Figures of merit from the R matrix.

R[i, j] is the accuracy on task j's test rows after learning task i (0-based
here), NaN where it was not evaluated.  T tasks.  All values are fractions.
What is read off a confusion matrix is in confusion.py.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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
