"""How many rows there are: of each task, of each class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages.report.figures.classes import classes as bars_of
from stages.report.page.document import Data, Figure, Table, Value, quoted
from stages.report.reading.about import DataAbout
from stages.report.reading.runs import Study

NOT_RECORDED = "not recorded"
_UNEVEN = 1.5
"""Most frequent class over the rarest from which on a figure shows more than the table."""


def tasks(study: Study, prefix: str) -> Table:
    run = study.first
    unknown: list[Any] = [None] * run.tasks
    train, test = run.task_train_rows or unknown, run.task_test_rows or unknown
    groups = run.task_classes or unknown
    rows: list[tuple[str, ...]] = []
    exact: list[tuple[Value, ...]] = []
    for k, (group, *counts) in enumerate(zip(groups, train, test, strict=True)):
        said = NOT_RECORDED if group is None else ", ".join(map(quoted, group))
        alone = " (nothing to choose)" if k in run.single_class_tasks else ""
        rows.append((str(k + 1), said + alone, *(_shown(count) for count in counts)))
        exact.append((k + 1, ";".join(group or []), *counts))
    tested = "validation" if run.evaluated_on == "validation" else "test"
    return Table(
        f"{prefix}tasks",
        "Tasks, in the order in which they were learnt",
        ("task", "classes", "training rows", f"{tested} rows"),
        tuple(rows),
        Data(("task", "classes", "train_rows", "test_rows"), tuple(exact)),
        printed=False,
    )


def classes(study: Study, data: DataAbout, prefix: str) -> Table:
    """Counts per class and split, by task."""
    splits = ["train", "test"]
    if any(rows.validation for rows in data.classes.values()):
        splits.insert(1, "validation")
    rows: list[tuple[str, ...]] = []
    exact: list[tuple[Value, ...]] = []
    for name, task in _in_order(study, data):
        counts = [getattr(data.classes[name], split) for split in splits]
        rows.append((quoted(name), task, *(f"{count:,}" for count in counts)))
        exact.append((name, int(task) if task else None, *counts))
    sums = [sum(int(row[2 + k] or 0) for row in exact) for k in range(len(splits))]
    heads = {"train": "training", "validation": "validation", "test": "test"}
    return Table(
        f"{prefix}classes",
        "Images of each class",
        ("class", "task", *(heads[split] for split in splits)),
        (*rows, ("all", "", *(f"{count:,}" for count in sums))),
        Data(("class", "task", *splits), tuple(exact)),
        "As the cache has them; those put aside for choosing are taken from the training images."
        if study.first.validation
        else "",
    )


def _in_order(study: Study, data: DataAbout) -> Iterator[tuple[str, str]]:
    """Classes by task; those in none at the end."""
    run = study.first
    groups = run.task_classes or []
    task_of = {name: str(k) for k, group in enumerate(groups, 1) for name in group}
    known = [name for name in run.class_order if name in data.classes]
    for name in [*known, *(name for name in data.classes if name not in known)]:
        yield name, task_of.get(name, "")


def frequencies(study: Study, data: DataAbout, prefix: str) -> Figure | None:
    """Only where classes are unequally frequent: equal bars tell nothing."""
    counts = {name: data.classes[name] for name, _ in _in_order(study, data)}
    train = [rows.train for rows in counts.values() if rows.train]
    if len(train) < 2 or max(train) < _UNEVEN * min(train):
        return None
    bars = [(name, task, counts[name]) for name, task in _in_order(study, data)]
    most = max(counts, key=lambda name: counts[name].train)
    least = min((n for n in counts if counts[n].train), key=lambda name: counts[name].train)
    return Figure(
        f"{prefix}classes",
        "How frequent the classes are",
        f"Training images: most of {most}, {counts[most].train}; fewest of {least}, "
        f"{counts[least].train}.",
        lambda: bars_of([(name, task, rows.train, rows.test) for name, task, rows in bars]),
        f"The most frequent class has {max(train) / min(train):.1f} times the training images of "
        "the rarest: read balanced accuracy and macro-F1 beside accuracy.",
        Data(
            ("class", "task", "train", "test"),
            tuple(
                (name, int(task) if task else None, rows.train, rows.test)
                for name, task, rows in bars
            ),
        ),
    )


def _shown(count: int | None) -> str:
    return NOT_RECORDED if count is None else f"{count:,}"
