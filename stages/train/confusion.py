"""The confusion matrix, and what is read off it.

C classes, N test rows.  confusion[k, c] counts the rows of class k (true) that
were answered c, int64 (C, C).  Expressions are unevenly frequent, so accuracy
alone flatters a network that knows only the frequent ones: recall, macro-F1 and
balanced accuracy weigh classes alike.  All of them are fractions in [0, 1], NaN
where there is no row to judge by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Fractions = NDArray[np.float64]


def confusion_matrix(
    targets: NDArray[np.integer[Any]], answered: NDArray[np.integer[Any]], classes: int
) -> Counts:
    """confusion[k, c] = number of rows n with targets[n] = k and answered[n] = c; int64 (C, C).

    Rows true, columns answered (Kohavi & Provost 1998).  `targets`, `answered` (N,) in
    [0, classes); a class without rows is a row of zeros.  Matrices of parts of the rows add up.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    _check_labels(targets, "targets", classes)
    _check_labels(answered, "answered", classes)
    if targets.shape != answered.shape:
        raise ValueError(
            f"Each row needs one answer, got {len(targets)} targets and {len(answered)} answers."
        )
    cells = targets.astype(np.int64) * classes + answered.astype(np.int64)
    counts = np.bincount(cells, minlength=classes * classes).astype(np.int64)
    return counts.reshape(classes, classes)


def recall(confusion: Counts) -> Fractions:
    """recall[k] = confusion[k, k] / sum_c confusion[k, c] = TP / (TP + FN); (C,), in [0, 1].

    The accuracy on one class's rows (van Rijsbergen 1979).  NaN for a class without rows.
    """
    _check_counts(confusion)
    rows = confusion.sum(axis=1)
    return _ratio(np.diag(confusion), rows)


def macro_f1(confusion: Counts) -> float:
    """Mean over the classes with rows of F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k); in [0, 1].

    F1: van Rijsbergen 1979.  The mean of the F1, not the F1 of the means (Opitz & Burst 2019
    tell the two apart).  A class never answered has F1 = 0.  A class without rows is left out,
    as elsewhere here; answers that name it still cost the true classes their recall
    (scikit-learn would take it in, as 0, once it was answered).  NaN without any row.
    """
    _check_counts(confusion)
    rows, columns = confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = _ratio(2 * np.diag(confusion), rows + columns)  # TP+FN, TP+FP
    return _mean(f1[rows > 0])


def balanced_accuracy(confusion: Counts) -> float:
    """Mean of recall over the classes with rows; in [0, 1].  Brodersen et al. 2010.

    Always answering one and the same class that has rows gets 1 / (number of classes with rows),
    however frequent that class is.  NaN without any row.
    """
    found = recall(confusion)
    return _mean(found[~np.isnan(found)])


def _ratio(part: Counts, whole: Counts) -> Fractions:
    """part / whole, NaN where the whole is 0."""
    out: Fractions = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: Fractions) -> float:
    return float(values.mean()) if len(values) else np.nan


def _check_labels(labels: NDArray[np.integer[Any]], name: str, classes: int) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} must be integers (N,), got {labels.dtype} {labels.shape}.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"{name} must lie in [0, {classes}), got {labels.min()} to {labels.max()}: leave out "
            "rows that belong to no task."
        )


def _check_counts(confusion: Counts) -> None:
    square = confusion.ndim == 2 and confusion.shape[0] == confusion.shape[1]
    if not square or not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
        raise ValueError(
            "A confusion matrix is square and holds counts >= 0, got "
            f"{confusion.dtype} {confusion.shape}."
        )
