"""A grid search in one table: a row for each point, accuracies on validation rows.

The file of a point is the `metrics.json` that `train` wrote for it.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cache.errors import Refused
from cache.limits import validated
from cache.plain import read_plain
from stages.report.terminal.table import Spread

Value = int | float | str | bool
"""Of an option."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Bytes = Annotated[int, Field(ge=0)]

_LIMIT = 64_000_000  # bytes; a larger file is not read
_KEEPS_ALL = ("cumulative", "joint")
"""They see again what continual learning may not: they do not compete with others."""
_ON_FRONT = "◆"
_MISSING = "–"


class _Total(BaseModel):
    rss_peak_bytes: Bytes | None = None


class _Resources(BaseModel):
    total: _Total


class SeedResult(BaseModel):
    """One seed: fractions, seconds, bytes."""

    model_config = ConfigDict(extra="ignore")

    average_accuracy: Fraction
    majority_floor: Fraction
    train_seconds: float = Field(ge=0, allow_inf_nan=False)
    memory_bytes: dict[str, Bytes] = Field(default_factory=dict)
    resources: _Resources | None = None


class Result(BaseModel):
    """What is read of one point's metrics.json."""

    model_config = ConfigDict(extra="ignore")

    strategy: str
    dataset: str
    backbone: str
    weights: str
    evaluated_on: Literal["validation"]
    task_test_rows: list[Annotated[int, Field(ge=0)]]
    """Of each task: the rows that accuracies are of."""
    runs: list[SeedResult] = Field(min_length=1)

    def spread(self, measure: Callable[[SeedResult], float]) -> Spread:
        values = [measure(run) for run in self.runs]
        sd = statistics.stdev(values) if len(values) > 1 else None
        return Spread(statistics.fmean(values), sd, len(values))

    @property
    def accuracy(self) -> Spread:
        """Mean over tasks after the last one, a fraction."""
        return self.spread(lambda run: run.average_accuracy)

    @property
    def floor(self) -> float:
        """Accuracy of the best constant answer, a fraction."""
        return self.spread(lambda run: run.majority_floor).mean

    @property
    def memory(self) -> float:
        """Bytes kept between tasks."""
        return self.spread(lambda run: sum(run.memory_bytes.values())).mean

    @property
    def rss_peak(self) -> int | None:
        """Largest resident memory of any seed, bytes; None where it was not measured."""
        peaks = [run.resources.total.rss_peak_bytes for run in self.runs if run.resources]
        return max((peak for peak in peaks if peak is not None), default=None)


@dataclass(frozen=True)
class Point:
    """One place of the grid; `result` is None where its run has failed."""

    options: dict[str, Value]
    """The grid's options here, by name."""
    result: Result | None
    error: str = ""

    @property
    def label(self) -> str:
        return ", ".join(shown(value) for value in self.options.values())


@dataclass(frozen=True)
class Sweep:
    """All points of a grid, in its order, and what they share."""

    points: tuple[Point, ...]
    fixed: dict[str, Value]
    """Options that are equal in all points."""

    @property
    def names(self) -> tuple[str, ...]:
        """The grid's options, in order."""
        return tuple(self.points[0].options)

    @property
    def done(self) -> list[tuple[Point, Result]]:
        return [(point, point.result) for point in self.points if point.result is not None]

    @property
    def rivals(self) -> list[tuple[Point, Result]]:
        """Points that compete for the best: joint and cumulative only among themselves."""
        fair = [pair for pair in self.done if pair[1].strategy not in _KEEPS_ALL]
        return fair or self.done


def read_json(path: Path) -> dict[str, Any]:
    """A file of a run.

    Raises:
        Refused: it is not there, or not what `train` writes.
    """
    try:
        found = json.loads(read_plain(path, _LIMIT))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found
    except (ValueError, RecursionError) as error:
        raise _strange(path, error) from None


def read_result(path: Path) -> Result:
    """A point's metrics.json.

    Raises:
        Refused: it is not there, not what `train` writes, or of test rows.
    """
    try:
        return validated(Result, read_json(path))
    except ValueError as error:
        raise _strange(path, error) from None


def _strange(path: Path, error: Exception) -> Refused:
    lines = " ".join(str(error).splitlines()[:3])
    return Refused(f"{path} is not what lgr-pipe train writes for a sweep: {lines}")


def front(rivals: Sequence[tuple[Point, Result]]) -> list[tuple[Point, Result]]:
    """The Pareto front, by rising memory: no other point is at least as good in both and
    better in one.  Equal points are all on it."""
    kept: list[tuple[Point, Result]] = []
    best = (-1.0, -1.0)  # memory, accuracy
    for point, result in sorted(rivals, key=lambda pair: (pair[1].memory, -_accuracy(pair[1]))):
        this = (result.memory, _accuracy(result))
        if this[1] > best[1] or this == best:
            kept.append((point, result))
            best = this
    return kept


def _accuracy(result: Result) -> float:
    return round(result.accuracy.mean, 9)  # no rank from rounding errors


def shown(value: Value) -> str:
    """
    >>> shown(0.0001), shown(3200), shown(True)
    ('0.0001', '3200', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown(sweep: Sweep) -> str:
    """The table, best accuracy in bold, and the remarks that it needs."""
    rows = [
        [
            *sweep.names, "n", "validation accuracy % ▲", "front", "majority floor %",
            "memory MB ▼", "peak RSS MB ▼", "training s ▼",
        ]
    ]  # fmt: skip
    best = max((_accuracy(result) for _, result in sweep.rivals), default=None)
    marked = {id(point) for point, _ in front(sweep.rivals)}
    rivals = {id(point) for point, _ in sweep.rivals}
    for point in sweep.points:
        cells = _cells(point.result)
        if point.result and id(point) in rivals and _accuracy(point.result) == best:
            cells[1] = f"**{cells[1]}**"
        if id(point) in marked:
            cells[2] = _ON_FRONT
        options = [shown(value).replace("|", "\\|") for value in point.options.values()]
        rows.append([*options, *cells])
    return f"{_heading(sweep)}\n\n{_aligned(rows)}\n\n{_remarks(sweep)}\n"


def _cells(result: Result | None) -> list[str]:
    if result is None:
        return ["0", "failed", "", "", "", "", ""]
    peak = result.rss_peak
    return [
        str(len(result.runs)),
        _cell(result.accuracy, 100, 2),
        "",
        f"{100 * result.floor:.2f}",
        f"{result.memory / 1e6:.1f}",
        _MISSING if peak is None else f"{peak / 1e6:.0f}",
        _cell(result.spread(lambda run: run.train_seconds), 1, 1),
    ]


def _cell(value: Spread, scale: float, digits: int) -> str:
    text = f"{value.mean * scale:.{digits}f}"
    return text if value.sd is None else f"{text} ± {value.sd * scale:.{digits}f}"


def _heading(sweep: Sweep) -> str:
    fixed = " · ".join(f"{name} {shown(value)}" for name, value in sweep.fixed.items())
    if not sweep.done:
        return fixed
    first = sweep.done[0][1]
    return f"**{first.dataset}, {first.backbone}, weights: {first.weights}** · {fixed}"


def _remarks(sweep: Sweep) -> str:
    lines = [
        "Mean ± sample standard deviation over n seeds. Accuracy: mean over tasks after the last "
        f"one, best in bold. {_ON_FRONT}: no other point is as accurate with as little memory. "
        "Majority floor: the best constant answer. Memory: what is kept between tasks; peak RSS: "
        "of the whole process, largest of all seeds (1 MB = 1e6 bytes). Training: seconds on a "
        "machine that other points may have shared."
    ]
    if len(sweep.rivals) < len(sweep.done):
        lines.append("joint and cumulative see all tasks again and do not compete.")
    if any(result.weights.startswith("random") for _, result in sweep.done):
        lines.append(
            "**The root is random, not pre-trained**: compare points, "
            "not levels with published ones."
        )
    failed = [point for point in sweep.points if point.result is None]
    if failed:
        said = [f"- {point.label}: `{point.error.replace('`', chr(39))}`" for point in failed]
        lines.append("\n".join(["**Failed:**", "", *said]))
    stopping = "early-stopping"
    if sweep.fixed.get(stopping) or any(point.options.get(stopping) for point in sweep.points):
        lines.append(
            "Early stopping looked at the same validation rows: these accuracies flatter a little."
        )
    counts = sorted({sum(result.task_test_rows) for _, result in sweep.done})
    rows = f"{'-'.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} " if counts else ""
    lines.append(
        f"These are accuracies on {rows}validation rows, for choosing; the test set was not "
        "looked at."
    )
    return "\n\n".join(lines)


def _aligned(rows: list[list[str]]) -> str:
    """A Markdown table whose columns also line up as plain text, all to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def csv_text(sweep: Sweep) -> str:
    """The same for machines: fractions, seconds, bytes; empty where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *sweep.names, "n", "validation_accuracy_mean", "validation_accuracy_sd", "front",
            "majority_floor", "memory_bytes", "rss_peak_bytes", "train_seconds_mean",
            "train_seconds_sd", "error",
        ]
    )  # fmt: skip
    marked = {id(point) for point, _ in front(sweep.rivals)}
    for point in sweep.points:
        options, result = point.options.values(), point.result
        if result is None:
            writer.writerow([*options, 0, *[""] * 8, point.error])
            continue
        accuracy, seconds = result.accuracy, result.spread(lambda run: run.train_seconds)
        values = [
            len(result.runs), accuracy.mean, accuracy.sd, int(id(point) in marked), result.floor,
            result.memory, result.rss_peak, seconds.mean, seconds.sd, None,
        ]  # fmt: skip
        writer.writerow([*options, *("" if value is None else value for value in values)])
    return out.getvalue()
