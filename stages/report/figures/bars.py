"""Bars of one or two measures side by side, a row for each strategy, a dot for each seed."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.style import FAINT, INK, PAPER, WIDTH, Look, canvas
from stages.report.figures.words import SMALL, short, width

_LINE = 24
"""Letters of a line of a name; it may have two."""


@dataclass(frozen=True)
class Bar:
    name: str
    look: Look
    values: Sequence[Sequence[float] | None]
    """For each measure what each seed has, fractions; None: undefined."""


def draw(bars: Sequence[Bar], measures: Sequence[str]) -> Any:
    """`measures`: what the axes are called, per cent."""
    names = [_two_lines(bar.name) for bar in bars]
    high = max(1.5, 0.66 + 0.3 * len(bars))
    left = 0.15 + width([line for name in names for line in name.split("\n")])
    figure = canvas(WIDTH, high)
    figure.set_layout_engine("none")
    wide = (WIDTH - left - 0.12 - 0.2 * (len(measures) - 1)) / len(measures)
    for k, measure in enumerate(measures):
        box = ((left + k * (wide + 0.2)) / WIDTH, 0.5 / high, wide / WIDTH, (high - 0.6) / high)
        axes = figure.add_axes(box)
        axes.set_xlabel(measure)
        axes.set_yticks(range(len(bars)), names if k == 0 else [""] * len(bars))
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(length=0, labelsize=SMALL)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
        for row, bar in enumerate(bars):
            _bar(axes, row, bar.look, bar.values[k])
        axes.axvline(0, color=INK, linewidth=0.8)
    return figure


def _bar(axes: Any, row: int, look: Look, values: Sequence[float] | None) -> None:
    if not values:
        axes.text(
            0.5, row, "undefined", transform=axes.get_yaxis_transform(), ha="center", va="center",
            fontsize=SMALL, color=FAINT,
        )  # fmt: skip
        return
    shown = [100 * value for value in values]
    mean = statistics.fmean(shown)
    axes.barh(row, mean, height=0.62, color=look.colour, alpha=0.85)
    if len(shown) > 1:
        axes.errorbar(
            mean, row, xerr=statistics.stdev(shown), fmt="none", ecolor=INK, elinewidth=1.2
        )
    # Seeds beside each other, so that equal ones can be counted.
    places = [row + (0.36 * ((k + 0.5) / len(shown) - 0.5)) for k in range(len(shown))]
    axes.plot(
        shown, places, linestyle="none", marker="o", markersize=3.6, markerfacecolor=PAPER,
        markeredgecolor=INK, markeredgewidth=0.8, zorder=5,
    )  # fmt: skip


def _two_lines(name: str) -> str:
    lines = textwrap.wrap(short(name, 2 * _LINE - 4), _LINE) or [""]
    return "\n".join(lines[:2])
