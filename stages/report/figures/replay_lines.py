"""A figure of merit of what is replayed, from task to task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.report.figures.replay_bars import short
from stages.report.figures.style import ALARM, FAINT, HEIGHT, INK, WIDTH, Look, canvas
from stages.report.terminal.table import Spread

_SHORT, _FEW = 16, 9
"""Letters, and lines, up to which names stand at the ends of lines; else in a legend."""
_LONGEST = 60
"""Letters of a name in the legend."""
_APART = 0.075
"""Of the height of the axes, between names."""
_LARGE = 3.0
"""Highest ratio that an even scale shows; beyond it is logarithmic."""
_LEAST = 1e-3
"""Ratio that stands at the bottom of a logarithmic scale, whatever is below it."""


@dataclass(frozen=True)
class Line:
    name: str
    look: Look
    points: tuple[tuple[int, Spread], ...]
    """(task learnt, value)"""


def draw_ratios(lines: Sequence[Line], collapsed: float) -> Any:
    """Variance ratios, with what would be real, and the bound of collapse: words for both are at
    the axis, where no line runs."""
    figure, axes = _begun(lines)
    top = max(value.mean + (value.sd or 0) for line in lines for _, value in line.points)
    least = 0.0 if top <= _LARGE else _LEAST
    if least:
        axes.set_yscale("log")
        ticks = [0.001, 0.01, *(10.0**k for k in range(1, int(np.log10(top)) + 1))]
        axes.set_ylim(least, 2 * top)
        axes.minorticks_off()
    else:
        ticks = [0, 0.5, *np.arange(1.5, top, 0.5)]
        axes.set_ylim(0, 1.08 * max(top, 1.05))
    words = {collapsed: f"collapsed < {collapsed:g}", 1.0: "1.0\nas varied\nas real"}
    axes.set_yticks([*ticks, *words], [*(f"{tick:g}" for tick in ticks), *words.values()])
    axes.get_yticklabels()[len(ticks)].set_color(ALARM)
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    axes.axhspan(least, collapsed, color=ALARM, alpha=0.13, linewidth=0)
    axes.axhline(collapsed, color=ALARM, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    _lines(axes, lines, 1.0, least)
    axes.set_ylabel("variance, replayed / real")
    _finish(figure, axes, lines)
    return figure


def draw_agreement(lines: Sequence[Line], real: Line | None) -> Any:
    """Shares, in per cent; `real`: of the real latents."""
    figure, axes = _begun(lines)
    axes.set_ylim(0, 104)
    shown = list(lines)
    if real is not None:
        x = [learnt for learnt, _ in real.points]
        y = [100 * value.mean for _, value in real.points]
        dashes = {"linestyle": (0, (4, 2)), "linewidth": 1, "marker": "_"}
        axes.plot(x, y, color=INK, label=real.name, zorder=1, **dashes)
        shown.append(real)
    _lines(axes, lines, 100.0, 0.0)
    axes.set_ylabel("answers that agree, %")
    _finish(figure, axes, shown, scale=100.0)
    return figure


def _begun(lines: Sequence[Line]) -> tuple[Any, Any]:
    rows = 0 if _at_ends(lines) else -(-len(lines) // _columns(lines))
    figure = canvas(WIDTH, HEIGHT + 0.17 * rows)
    axes = figure.subplots()
    learnt = sorted({x for line in lines for x, _ in line.points})
    step = -(-len(learnt) // 12)
    axes.set_xticks(learnt[::step])
    axes.set_xlim(learnt[0] - 0.35, learnt[-1] + 0.35)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("after learning task")
    return figure, axes


def _lines(axes: Any, lines: Sequence[Line], scale: float, least: float) -> None:
    """Side by side, so that bars of spread do not hide each other."""
    for place, line in zip(_places(len(lines)), lines, strict=True):
        x = np.array([learnt for learnt, _ in line.points]) + place
        y = np.array([scale * value.mean for _, value in line.points])
        bars = [scale * (value.sd or 0) for _, value in line.points]
        axes.errorbar(
            x, np.maximum(y, least), yerr=bars, color=line.look.colour, marker=line.look.mark,
            linestyle=line.look.line, elinewidth=1.1, linewidth=1.4,
            label=short(line.name, _LONGEST), zorder=3,
        )  # fmt: skip


def _places(count: int) -> Any:
    """Offsets along the axis of tasks."""
    return np.linspace(-0.5, 0.5, count) * min(0.4, 0.08 * (count - 1)) if count > 1 else [0.0]


def _columns(lines: Sequence[Line]) -> int:
    """Of the legend."""
    return 2 if max(len(line.name) for line in lines) <= 28 else 1


def _at_ends(lines: Sequence[Line]) -> bool:
    return len(lines) <= _FEW and all(len(line.name) <= _SHORT for line in lines)


def _finish(figure: Any, axes: Any, lines: Sequence[Line], scale: float = 1.0) -> None:
    """Names: at the ends of lines, moved apart, or in a legend below."""
    if not _at_ends(lines):
        figure.legend(loc="outside lower left", ncols=_columns(lines), borderpad=0)
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [
        to_axes.transform((1, max(scale * line.points[-1][1].mean, _LEAST)))[1] for line in lines
    ]
    outside = {"transform": axes.transAxes, "clip_on": False, "in_layout": False}
    for line, end, y in zip(lines, ends, _moved_apart(ends), strict=True):
        axes.plot([1.005, 1.035], [end, y], color=FAINT, linewidth=0.6, **outside)
        axes.plot([1.055], [y], line.look.mark, color=line.look.colour, **outside)
        axes.text(1.085, y, line.name, transform=axes.transAxes, va="center")


def _moved_apart(places: Sequence[float]) -> list[float]:
    """As near to their places as names can stand, in their order."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    found = [0.0] * len(places)
    low = 0.02
    for k in order:
        found[k] = low = max(places[k], low)
        low += _APART
    high = 1.0
    for k in reversed(order):
        found[k] = high = min(found[k], high)
        high -= _APART
    return found
