"""Does the sample table say the same as the columns beside it?"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.schema import SPLITS, Manifest, iter_lines
from cache.source import Place
from cache.store import Array

Rows = NDArray[np.int64]


@dataclass
class Table:
    """The sample table as numbers, one a row: what can be compared with a column."""

    rows: int = 0
    misplaced: array[int] = field(default_factory=lambda: array("q"))
    """Rows whose line does not have their number."""
    label: array[int] = field(default_factory=lambda: array("q"))
    split: array[int] = field(default_factory=lambda: array("q"))
    crop: array[int] = field(default_factory=lambda: array("q"))
    """Of latents: the row of the crop.  Minus two, here and above: not one of the known."""
    subject: array[int] = field(default_factory=lambda: array("q"))
    """Position in `subjects`."""
    subjects: dict[str, int] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    stated: set[str] = field(default_factory=set)
    """Fields that any row has."""


def read_table(path: Place, manifest: Manifest) -> Table:
    """Reads a line at a time; stops after one more than there may be.

    Raises:
        CacheDamagedError: a line that cannot be read.
    """
    classes = {name: k for k, name in enumerate(manifest.classes)}
    splits = {name: k for k, name in enumerate(SPLITS)} | {"": 0}  # not stated: train
    table = Table()
    for number, row in enumerate(iter_lines(path)):
        if number > manifest.rows:
            break
        table.rows += 1
        table.stated |= row.keys()
        if row.get("row") != number:
            table.misplaced.append(number)
        table.label.append(classes.get(str(row.get("label")), -2))
        table.split.append(splits.get(str(row.get("split")), -2))
        crop = row.get("crop")
        table.crop.append(crop if isinstance(crop, int) and 0 <= crop < 1 << 62 else -2)
        name = str(row.get("subject"))
        table.subject.append(table.subjects.setdefault(name, len(table.subjects)))
        table.statuses[str(row.get("status", ""))] += 1
    return table


FIELDS = {"label": "label", "split": "split", "subject": "subject", "row": "crop"}
"""Column -> the field of the table that says the same."""


def misaligned(table: Table, column: str, values: Array, kind: str) -> Rows:
    """Rows, int64, where a column does not say what its field of the table says."""
    if column == "subject":
        return _other_subject(table, values, kind)
    said = {"label": table.label, "split": table.split, "row": table.crop}.get(column)
    if said is None:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.asarray(said) != values.reshape(-1))


def _other_subject(table: Table, values: Array, kind: str) -> Rows:
    """A subject is the rank of its name, -1 where there is none.

    Latents know only the names of their own rows: there the numbers must rise
    with the names, in crops they are 0, 1, 2, ...
    """
    which = np.asarray(table.subject)
    code = np.full(len(table.subjects), -1, dtype=np.int64)
    code[which[::-1]] = values[::-1]  # of each name, the number in its first row
    bad = np.zeros(len(code), dtype=np.bool_)  # a name whose number cannot be
    ranked = [table.subjects[name] for name in sorted(table.subjects.keys() - {""})]
    before = np.maximum.accumulate(np.append(np.int64(-1), code[ranked]))[:-1]
    bad[ranked] = code[ranked] <= before
    if kind == "crops":
        bad[ranked] |= code[ranked] != before + 1
    if "" in table.subjects:
        bad[table.subjects[""]] = code[table.subjects[""]] != -1
    return np.flatnonzero(bad[which] | (code[which] != values))
