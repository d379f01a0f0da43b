"""What lies in a folder, counted and set against what the authors published."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.datasets import module, options, read
from stages.datasets.files import is_file, notes
from stages.datasets.sample import About, Counts, Dataset

TOTAL = "all"
"""The class of the rows that sum up a split."""

_NO_COUNT = frozenset({"split_seed", "download", "images"})
"""Options that do not change how many images there are of a class in all."""


@dataclass(frozen=True)
class Row:
    """Images of one class, or of all, in one split (or in some: "train+test")."""

    split: str
    label: str
    found: int
    published: int | None


@dataclass(frozen=True)
class Comparison:
    rows: tuple[Row, ...]
    """By split, then in the order of the classes, then all together."""
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    dataset: Dataset
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.differences


def check(name: str, root: Path, **given: Any) -> Check:
    """Read and compare.  Raises Refused, as `stages.datasets.read`."""
    dataset = read(name, root, **given)
    compared = compare(dataset, module(name).ABOUT)
    missing = missing_files(dataset)
    differences = [*compared.differences, *notes({"listed images that are not there": missing})]
    remarks = list(dataset.notes)
    defaults = options(name)
    changed = [
        f"--{key.replace('_', '-')} {value}"
        for key, value in defaults.items()
        if key not in _NO_COUNT and given.get(key, value) != value
    ]
    if changed and compared.differences:
        remarks.append(f"the published counts are those of {', '.join(changed)}")
    return Check(dataset, compared.rows, tuple(differences), tuple(remarks))


def counts(dataset: Dataset) -> Counts:
    """Split -> class -> images."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        found[sample.split or ""][sample.label] += 1
    return found


def missing_files(dataset: Dataset) -> list[str]:
    """Ids of the images that are not on the disk; each folder is listed once."""
    folders: defaultdict[Path, list[tuple[str, str]]] = defaultdict(list)
    for sample in dataset.samples:
        if isinstance(sample.image, Path):
            folders[sample.image.parent].append((sample.image.name, sample.id))
    missing = []
    for folder, wanted in folders.items():
        try:
            with os.scandir(folder) as entries:
                names = {entry.name for entry in entries if is_file(entry)}
        except OSError:
            names = set()
        missing += [name for file, name in wanted if file not in names]
    return sorted(missing)


def compare(dataset: Dataset, about: About) -> Comparison:
    found = counts(dataset)
    keys = [*about.published, *(split for split in found if split not in about.published)]
    order = {*about.classes}
    classes = [*about.classes, *(label for label in dataset.classes if label not in order)]
    rows = []
    for key in keys:
        here = sum((Counter(found.get(split, {})) for split in key.split("+")), Counter[str]())
        known = about.published.get(key)
        rows += [
            Row(key, label, here[label], None if known is None else known.get(label, 0))
            for label in classes
        ]
        total = None if known is None else sum(known.values())
        rows.append(Row(key, TOTAL, sum(here.values()), total))
    differences = [
        f"{row.split}/{row.label}: {row.published} published, {row.found} found"
        for row in rows
        if row.published not in (None, row.found) and row.label != TOTAL
    ]
    return Comparison(tuple(rows), tuple(differences))


def table(rows: tuple[Row, ...]) -> str:
    """Plain text: a line for each class, a column for each split, `found/published` if known."""
    splits = list(dict.fromkeys(row.split for row in rows))
    lines: dict[str, dict[str, str]] = {"class": {split: split for split in splits}}
    for row in rows:
        known = "" if row.published is None else f"/{row.published}"
        lines.setdefault(row.label, {})[row.split] = f"{row.found}{known}"
    first = max(map(len, lines))
    widths = {split: max(len(cells[split]) for cells in lines.values()) for split in splits}
    return "\n".join(
        "  ".join([label.ljust(first), *(cells[split].rjust(widths[split]) for split in splits)])
        for label, cells in lines.items()
    )


def text(check: Check) -> str:
    """For people: the table, what differs, what was left out."""
    known = any(row.published is not None for row in check.rows)
    verdict = (
        "differs from what is published, or is not complete:"
        if check.differences
        else "as published"
        if known
        else "complete; there are no published counts to compare with"
    )
    title = f"{check.dataset.name}, {check.dataset.size} images"
    return "\n".join(
        [
            f"{title} ({'found/published' if known else 'found'})",
            table(check.rows),
            verdict,
            *(f"  {line}" for line in check.differences),
            *(f"note: {line}" for line in check.notes),
        ]
    )
