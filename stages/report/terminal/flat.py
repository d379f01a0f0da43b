"""The same for machines: fractions, seconds, bytes; empty where undefined or not measured."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stages.report.numbers.columns import ALSO, BALANCED, COSTS, Column, results
from stages.report.numbers.paired import over_none
from stages.report.reading.runs import Run, Study
from stages.report.terminal.remarks import FLOOR, short_heading, single_classes
from stages.report.terminal.table import ordered, spread

Row = Mapping[str, object]

_ABOUT = (
    "dataset", "backbone", "weights", "scenario", "protocol", "evaluated_on", "validation",
    "tasks", "iters", "batch_size", "lr", "precision", "cache_fingerprint", "cache_content",
)  # fmt: skip
_COLUMNS: tuple[Column, ...] = (*results("task"), BALANCED, *COSTS)
_SUMS = ("memory_bytes", "macs_per_iteration")
"""Each part of them has a column of its own too."""
_OVER = {"over_none_mean": "mean", "over_none_lower": "lower", "over_none_upper": "upper"}


def table_csv(studies: Sequence[Study]) -> str:
    """A line for each strategy of each study, counted from 1, and for its floor.

    over_none: see paired.over_none; its 95 % interval, and n its seeds.
    """
    parts = _parts(studies)
    names = [
        "study", "strategy", "n", *_ABOUT, "task_classes", "single_class_tasks", "also_scenario",
        *(f"{c.key}_{part}" for c in _COLUMNS for part in ("mean", "sd")),
        *_OVER, "over_none_n", *(f"{sum_}_{kind}_mean" for sum_, kind in parts),
    ]  # fmt: skip
    return _text(names, (row for k, study in enumerate(studies, 1) for row in table_rows(k, study)))


def table_rows(number: int, study: Study) -> Iterator[Row]:
    first = study.first
    shared = {"study": number, **{name: getattr(first, name) for name in _ABOUT}}
    shared["task_classes"] = ";".join(",".join(task) for task in first.task_classes or [])
    shared["single_class_tasks"] = single_classes(first)
    shared["also_scenario"] = ALSO.get(first.scenario, "")
    compared = over_none(study)
    yield {**shared, "strategy": FLOOR, "average_accuracy_mean": study.floor}
    for name, run in ordered(study):
        row: dict[str, object] = {**shared, "strategy": name, "n": len(run.runs) if run else 0}
        if run is not None:
            row |= _figures(run)
        if name in compared:
            found = compared[name]
            known = found.n > 1
            row |= {key: getattr(found, of) for key, of in _OVER.items() if known}
            row["over_none_n"] = found.n
        yield row


def _figures(run: Run) -> Iterator[tuple[str, object]]:
    """Mean and sample standard deviation over seeds."""
    for column in _COLUMNS:
        found = spread(run, column.measure)
        if found is not None:
            yield f"{column.key}_mean", found.mean
            yield f"{column.key}_sd", found.sd
    for sum_, kind in _parts([Study((run,))]):
        values = [getattr(seed, sum_).get(kind, 0) for seed in run.runs]
        yield f"{sum_}_{kind}_mean", statistics.fmean(values)


def _parts(studies: Iterable[Study]) -> list[tuple[str, str]]:
    """What memory and work are made up of, such as ("memory_bytes", "buffer")."""
    seeds = [seed for study in studies for run in study.runs for seed in run.runs]
    found = {(sum_, kind) for seed in seeds for sum_ in _SUMS for kind in getattr(seed, sum_)}
    return sorted(found)


def curves_csv(studies: Sequence[Study]) -> str:
    """study, strategy, seed, learnt, accuracy: mean accuracy on the tasks learnt so far, of every
    run; for figures.  No line where one of these tasks was not evaluated."""
    labels = _labels(studies)
    rows: list[Row] = [
        {
            "study": label,
            "strategy": run.label,
            "seed": seed.seed,
            "learnt": learnt,
            "accuracy": statistics.fmean(value for value in row[:learnt] if value is not None),
        }
        for label, study in zip(labels, studies, strict=True)
        for _, run in ordered(study)
        if run is not None
        for seed in run.runs
        for learnt, row in enumerate(seed.accuracy_matrix, 1)
        if None not in row[:learnt]
    ]
    return _text(["study", "strategy", "seed", "learnt", "accuracy"], rows)


def _labels(studies: Sequence[Study]) -> list[str]:
    """Different for different studies."""
    labels = [short_heading(study.first) for study in studies]
    return [
        f"{label} ({k})" if labels.count(label) > 1 else label for k, label in enumerate(labels, 1)
    ]


def _text(names: Sequence[str], rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
