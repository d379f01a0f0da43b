"""Answers, the confusion matrix, and what is read off it.

C classes, N test rows.  confusion[k, c] counts the rows of class k (true) that
were answered c, int64 (C, C).  Expressions are unevenly frequent, so accuracy
alone flatters a network that knows only the frequent ones: recall, macro-F1 and
balanced accuracy weigh classes alike.  All of them are fractions in [0, 1], NaN
where there is no row to judge by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Fractions = NDArray[np.float64]


def own_head(
    targets: NDArray[np.integer[Any]], heads: Sequence[range], classes: int
) -> NDArray[np.bool_]:
    """bool (N, C): for each row the classes of the task to which its true class belongs.

    What task-incremental answers may choose from (van de Ven & Tolias 2019).  `targets` (N,)
    in [0, classes); `heads` are the tasks' classes, together each class once.

    >>> own_head(np.array([2, 0]), [range(0, 2), range(2, 3)], 3).tolist()
    [[False, False, True], [True, True, False]]
    """
    _check_partition(heads, classes)
    _check_labels(targets, "targets", classes)
    task = np.empty(classes, dtype=np.int64)
    for index, head in enumerate(heads):
        task[head] = index
    own: NDArray[np.bool_] = task[targets][:, None] == task
    return own


def answers(logits: NDArray[np.floating[Any]], allowed: NDArray[np.bool_]) -> Counts:
    """argmax over c of (logits[n, c] if allowed, else -inf); int64 (N,).

    `logits` (N, C); `allowed` bool (N, C), or (C,) for all rows alike: all classes seen so far
    class-incrementally, `own_head` task-incrementally (van de Ven & Tolias 2019).  Ties go to
    the lowest index among those allowed, also where they are all -inf.

    Raises:
        ValueError: a NaN anywhere, allowed or not; a row that may answer nothing; shapes.
    """
    if logits.ndim != 2 or allowed.shape not in (logits.shape, logits.shape[1:]):
        raise ValueError(
            f"Required logits (N, C) and allowed (N, C) or (C,), got {logits.shape} and "
            f"{allowed.shape}."
        )
    if allowed.dtype != np.bool_:
        raise ValueError(f"allowed must be bool, got {allowed.dtype}: give a mask, not indices.")
    if np.isnan(logits).any():
        bad = np.flatnonzero(np.isnan(logits).any(axis=1))
        raise ValueError(f"{len(bad)} rows of logits hold NaN, the first is row {bad[0]}.")
    mask = np.broadcast_to(allowed, logits.shape)
    if not mask.any(axis=1).all():
        bad = np.flatnonzero(~mask.any(axis=1))
        raise ValueError(f"{len(bad)} rows may answer no class, the first is row {bad[0]}.")
    masked = np.where(mask, logits, -np.inf)
    best = masked.max(axis=1, keepdims=True)
    found: Counts = np.argmax(mask & (masked == best), axis=1).astype(np.int64)
    return found


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


def task_incremental_accuracies(confusion: Counts, heads: Sequence[range]) -> Fractions:
    """A_t = sum_{k in head t} confusion[k, k] / sum_{k, c in head t} confusion[k, c]; (T,).

    In [0, 1]; the task-incremental row of R (van de Ven & Tolias 2019), NaN for a task without
    rows.  `heads` are the tasks' classes, together each class once.  A count outside the own
    head hides which class of the head would have been answered, so it is refused; with none,
    an argmax over more classes than the head is also the argmax over the head.

    Raises:
        ValueError: a row was answered with another task's class.
    """
    _check_counts(confusion)
    _check_partition(heads, len(confusion))
    blocks = [confusion[np.ix_(head, head)] for head in heads]
    outside = int(confusion.sum()) - sum(int(block.sum()) for block in blocks)
    if outside:
        raise ValueError(
            f"{outside} of {int(confusion.sum())} rows were answered with another task's class: "
            "task-incremental accuracy cannot be told from these counts. Restrict the logits "
            "first: answers(logits, own_head(targets, heads, classes))."
        )
    right = np.array([np.trace(block) for block in blocks], dtype=np.int64)
    return _ratio(right, np.array([block.sum() for block in blocks], dtype=np.int64))


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


def _check_partition(heads: Sequence[range], classes: int) -> None:
    if sorted(k for head in heads for k in head) != list(range(classes)):
        raise ValueError(
            f"The heads must hold each of the {classes} classes once, got {list(heads)}."
        )
