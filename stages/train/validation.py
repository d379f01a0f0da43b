"""Put training rows aside for choosing, so that no choice looks at a test row."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused

Rows = NDArray[np.int64]


def hold_out(
    rows: Rows, labels: NDArray[Any], subjects: NDArray[Any], share: float
) -> tuple[Rows, Rows]:
    """(rows to learn, rows to validate with): about `share` of each class's rows.

    `rows` (n,) are positions in the cache; `labels`, `subjects` (N,) are of the whole cache,
    subject -1 where it is not known.  Where all subjects are known, they go as a whole, so
    that no person is on both sides.  The choice depends on nothing but row or subject numbers
    and the labels: every seed and strategy gets the same rows.

    Raises:
        Refused: a class of which nothing would be left on a side.
    """
    if not 0 < share < 1:
        raise Refused(f"--validation must lie between 0 and 1, got {share}.")
    by_subject = bool((subjects[rows] >= 0).all())
    groups = subjects[rows] if by_subject else rows
    aside = _choose(np.asarray(labels)[rows], groups, share)
    _refuse_one_sided(np.asarray(labels)[rows], aside, by_subject)
    return rows[~aside], rows[aside]


def _choose(labels: NDArray[Any], groups: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Which rows go aside: whole groups in hash order, until each class has its share.

    Rare classes choose first: what a common one takes with its groups may
    already be enough of them, not the other way round.
    """
    aside = np.zeros(len(labels), dtype=bool)
    names, counts = np.unique(labels, return_counts=True)
    for label in names[np.argsort(counts, kind="stable")]:
        mine = labels == label
        wanted = max(1, round(share * int(mine.sum())))
        candidates = sorted(np.unique(groups[mine & ~aside]).tolist(), key=_order)
        for group in candidates:
            if int((aside & mine).sum()) >= wanted:
                break
            aside |= groups == group
    return aside


def _order(group: int) -> bytes:
    return hashlib.blake2b(f"validation:{group}".encode(), digest_size=8).digest()


def _refuse_one_sided(labels: NDArray[Any], aside: NDArray[np.bool_], by_subject: bool) -> None:
    left, held = set(labels[~aside].tolist()), set(labels[aside].tolist())
    if left != held:
        unit = "subjects" if by_subject else "rows"
        raise Refused(
            f"--validation leaves a class without rows on one side: too few {unit}. "
            "Choose another share, or do without."
        )
