"""The result table: strategies in rows, mean ± sample standard deviation over seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.report.runs import Run, SeedRun

Measure = Callable[[SeedRun], float | None]


@dataclass(frozen=True)
class ColumnOf:
    """A column: how it is headed, where it comes from, how it is scaled for people."""

    key: str
    heading: str
    measure: Measure
    scale: float
    digits: int


COLUMNS = (
    ColumnOf("average_accuracy", "accuracy % ▲", lambda r: r.average_accuracy, 100, 2),
    ColumnOf("forgetting", "forgetting % ▼", lambda r: r.forgetting, 100, 2),
    ColumnOf("bwt", "BWT % ▲", lambda r: r.bwt, 100, 2),
    ColumnOf("fwt", "FWT % ▲", lambda r: r.fwt, 100, 2),
    ColumnOf("train_seconds", "training s ▼", lambda r: r.train_seconds, 1, 1),
    ColumnOf("memory_bytes", "memory MB ▼", lambda r: sum(r.memory_bytes.values()), 1e-6, 1),
)

FLOOR = "majority floor"
_ALWAYS = ("none", "joint")
_KEEPS_ALL = ("cumulative", "joint")
"""They see again what continual learning may not: they do not compete."""
_MISSING = "not run"


@dataclass(frozen=True)
class Spread:
    """n values; sd is None for n = 1."""

    mean: float
    sd: float | None
    n: int


def spread(run: Run, measure: Measure) -> Spread | None:
    """None where a seed has no such value."""
    values = [v for v in (measure(seed) for seed in run.runs) if v is not None]
    if len(values) < len(run.runs):
        return None
    return Spread(
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        len(values),
    )


def ordered(runs: Sequence[Run]) -> list[tuple[str, Run | None]]:
    """none, the replay strategies by name, joint; none and joint even where they were not run."""
    by_name = {run.strategy: run for run in runs}
    between = sorted(by_name.keys() - set(_ALWAYS))
    return [(name, by_name.get(name)) for name in ("none", *between, "joint")]


def markdown(runs: Sequence[Run]) -> str:
    """The table with a heading that says what was run, and the remarks it needs."""
    rows = [["strategy", "n", *(column.heading for column in COLUMNS)], _floor_row(runs)]
    ranks = _ranks(runs)
    for name, run in ordered(runs):
        if run is None:
            rows.append([name, "0", _MISSING, *[""] * (len(COLUMNS) - 1)])
            continue
        cells = [_cell(spread(run, c.measure), c.scale, c.digits) for c in COLUMNS]
        cells[0] = ranks.get(name, "{}").format(cells[0])
        rows.append([name, str(len(run.runs)), *cells])
    return f"{_heading(runs[0])}\n\n{_aligned(rows)}\n\n{_remarks(runs)}\n"


def _floor_row(runs: Sequence[Run]) -> list[str]:
    floor = statistics.fmean(seed.majority_floor for run in runs for seed in run.runs)
    return [FLOOR, "", f"{100 * floor:.2f}", *[""] * (len(COLUMNS) - 1)]


def _ranks(runs: Sequence[Run]) -> dict[str, str]:
    """Best accuracy in bold, second in braces, as in the LGR paper; joint does not compete."""
    means = sorted(
        {round(_accuracy(run), 9) for run in runs if run.strategy not in _KEEPS_ALL}, reverse=True
    )
    marks = dict(zip(means, ("**{}**", "[{}]"), strict=False))
    return {
        run.strategy: marks[round(_accuracy(run), 9)]
        for run in runs
        if run.strategy not in _KEEPS_ALL and round(_accuracy(run), 9) in marks
    }


def _accuracy(run: Run) -> float:
    return statistics.fmean(seed.average_accuracy for seed in run.runs)


def _cell(value: Spread | None, scale: float, digits: int) -> str:
    if value is None:
        return "–"
    rounded = round(value.mean * scale, digits) + 0.0  # no "-0.00"
    text = f"{rounded:.{digits}f}"
    return text if value.sd is None else f"{text} ± {value.sd * scale:.{digits}f}"


def _heading(run: Run) -> str:
    width, classes = run.tasks, len(run.class_order)
    return (
        f"**{run.dataset}, {run.backbone}, weights: {run.weights}** · "
        f"{run.scenario}-incremental, {classes} classes in {width} tasks · "
        f"{run.iters} iterations a task, batch {run.batch_size}, learning rate {run.lr:g}"
    )


def _remarks(runs: Sequence[Run]) -> str:
    cumulative = any(run.strategy == "cumulative" for run in runs)
    apart = (
        "joint and cumulative see all tasks again and do not compete"
        if cumulative
        else "joint sees all tasks at once and does not compete"
    )
    lines = [
        "Mean ± sample standard deviation over n seeds. Accuracy: mean over tasks after the last "
        f"one. Best in bold, second in [braces]; {apart}. "
        f"{FLOOR}: the best constant answer. Memory: what is kept between tasks (1 MB = 1e6 bytes)."
    ]
    first = runs[0]
    if first.weights.startswith("random"):
        lines.append(
            "**The root is random, not pre-trained**: compare strategies, "
            "not levels with published ones."
        )
    if first.single_class_tasks:
        numbers = ", ".join(str(index + 1) for index in first.single_class_tasks)
        effect = (
            "always answered right and raises every accuracy, the floor's too"
            if first.scenario == "task"
            else "answered among all classes seen"
        )
        lines.append(f"**Warning: task {numbers} has a single class**: it is {effect}.")
    return "\n\n".join(lines)


def _aligned(rows: list[list[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])


def csv_text(runs: Sequence[Run]) -> str:
    """The same for machines: fractions, seconds, bytes; empty where undefined or not run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    about = ("dataset", "backbone", "weights", "scenario", "tasks")
    measures = [f"{c.key}_{part}" for c in COLUMNS for part in ("mean", "sd")]
    writer.writerow(["strategy", "n", *about, *measures])
    first = runs[0]
    shared = [getattr(first, name) for name in about]
    floor = statistics.fmean(seed.majority_floor for run in runs for seed in run.runs)
    writer.writerow([FLOOR, "", *shared, floor, *[""] * (len(measures) - 1)])
    for name, run in ordered(runs):
        if run is None:
            writer.writerow([name, 0, *shared, *[""] * len(measures)])
            continue
        values: list[float | str] = []
        for column in COLUMNS:
            found = spread(run, column.measure)
            values += (
                ["", ""] if found is None else [found.mean, "" if found.sd is None else found.sd]
            )
        writer.writerow([name, len(run.runs), *shared, *values])
    return out.getvalue()
