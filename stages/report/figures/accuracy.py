"""Accuracy of each strategy, and its difference from none: seeds, mean and interval."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.style import FAINT, PAPER, WIDTH, canvas, look
from stages.report.numbers.paired import Paired
from stages.report.reading.runs import JOINT, NONE

_LABEL = 26
"""Letters in a line of a label."""


@dataclass(frozen=True)
class Row:
    """A strategy; all in per cent or points."""

    label: str
    strategy: str
    variant: int
    values: tuple[float, ...]
    """Of each seed."""
    found: Paired
    """Their mean, and its interval."""
    sure: bool = True
    """A full mark; else a hollow one."""


def accuracies(rows: Sequence[Row], floor: float) -> Any:
    """Per cent; `floor`: of the best constant answer.  Lines lead down from none and joint,
    where that is one run."""
    figure, axes = _axes(rows)
    axes.axvline(floor, color=FAINT, linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=1.5)
    strategies = [row.strategy for row in rows]
    for row in rows:
        if row.strategy in (NONE, JOINT) and strategies.count(row.strategy) == 1:
            seen = look(row.strategy, row.variant)
            axes.axvline(
                row.found.mean, color=seen.colour, linewidth=1, linestyle=seen.line, zorder=1.5
            )
    _draw(axes, rows)
    low, high = _bounds(rows, (floor,))
    axes.set_xlim(max(low, -1.0), min(high, 101.0))
    place = (floor - axes.get_xlim()[0]) / (axes.get_xlim()[1] - axes.get_xlim()[0])
    axes.annotate(
        f"majority floor {floor:.1f} %", (floor, 1), xycoords=("data", "axes fraction"),
        xytext=(0, 3), textcoords="offset points", color=FAINT, fontsize=9,
        ha="left" if place < 0.2 else "right" if place > 0.8 else "center",
    )  # fmt: skip
    axes.set_xlabel("accuracy after the last task, %")
    return figure


def differences(rows: Sequence[Row]) -> Any:
    """Points of accuracy, none subtracted seed by seed."""
    figure, axes = _axes(rows)
    seen = look(NONE)
    axes.axvline(0, color=seen.colour, linewidth=1.2, linestyle=seen.line, zorder=1.5)
    _draw(axes, rows)
    low, high = _bounds(rows, (0.0,))
    axes.set_xlim(max(low, -101.0), min(high, 101.0))
    axes.set_xlabel("accuracy less that of none, points")
    for text, x, align in (("◂ worse than none", 0, "left"), ("better ▸", 1, "right")):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
            color=FAINT, fontsize=9, ha=align,
        )  # fmt: skip
    return figure


def _axes(rows: Sequence[Row]) -> tuple[Any, Any]:
    """A line of the figure for each row, the first on top."""
    labels = [textwrap.fill(row.label, _LABEL) for row in rows]
    lines = [label.count("\n") + 1 for label in labels]
    height = 0.85 + sum(max(0.34, 0.17 * count) for count in lines)
    figure = canvas(WIDTH, height)
    axes = figure.add_subplot()
    axes.set_yticks(range(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _draw(axes: Any, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        seen = look(row.strategy, row.variant)
        found = row.found
        axes.plot(
            row.values, [place + 0.24] * len(row.values), "o", markersize=3.6, alpha=0.6,
            color=seen.colour, markeredgewidth=0, clip_on=False, zorder=3,
        )  # fmt: skip
        if not math.isnan(found.lower):
            axes.plot([found.lower, found.upper], [place] * 2, "-", color=seen.colour, zorder=2.5)
        axes.plot(
            [found.mean], [place], marker=seen.mark, markersize=7, color=seen.colour,
            markerfacecolor=seen.colour if row.sure else PAPER, clip_on=False, zorder=4,
        )  # fmt: skip


def _bounds(rows: Sequence[Row], also: Sequence[float]) -> tuple[float, float]:
    """All that is drawn, and a little more."""
    ends = [*also, *(value for row in rows for value in row.values)]
    for row in rows:
        ends += [end for end in (row.found.lower, row.found.upper) if not math.isnan(end)]
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
