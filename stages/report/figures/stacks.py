"""Stacked bars: what a strategy's bytes or seconds are made up of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.style import FAINT, ON_LIGHT, PAPER, WIDTH, canvas
from stages.report.figures.words import short

_COLOURS = {
    "load": "#77AADD",
    "replay": "#EE8866",
    "solver": "#BBCC33",
    "generator": "#FFAABB",
    "evaluation": "#44BB99",
    "other": "#EEDD88",
    "record": "#AAAA00",
    "buffer": "#EE8866",
    "snapshots": "#99DDFF",
}
"""Tol's light scheme, for the colour-blind: not the colours of strategies."""
_SPARE = ("#77AADD", "#44BB99", "#EEDD88", "#AAAA00", "#BBCC33", "#EE8866")
"""For parts that are not ours."""
_LETTERS = 24
"""Of a name, at most."""


@dataclass(frozen=True)
class Bar:
    label: str
    parts: Mapping[str, float]
    """In the figure's unit; empty: nothing."""
    total: str
    """In words, at its end."""
    beside: float | None = None
    """Another value, in the same unit, in a panel of its own."""


def draw(bars: Sequence[Bar], order: Sequence[str], xlabel: str, beside: str = "") -> Any:
    """One below the other; parts in `order`; `beside`: what Bar.beside is, empty: nothing."""
    figure = canvas(WIDTH, 1.35 + 0.3 * len(bars))
    if beside:
        axes, other = figure.subplots(1, 2, sharey=True, width_ratios=(5, 3))
        _beside(other, bars, beside)
    else:
        axes = figure.add_subplot()
    colours = part_colours(order)
    names: list[tuple[str, int, float, float]] = []
    lefts = [0.0] * len(bars)
    for part in order:
        widths = [bar.parts.get(part, 0.0) for bar in bars]
        axes.barh(
            range(len(bars)), widths, left=lefts, height=0.62, label=part, facecolor=colours[part],
            edgecolor=PAPER, linewidth=0.6,
        )  # fmt: skip
        if widths:
            k = widths.index(max(widths))
            names.append((part, k, lefts[k], widths[k]))
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    _words(axes, lefts, [bar.total for bar in bars])
    axes.set_yticks(
        range(len(bars)), [short(bar.label, _LETTERS) for bar in bars], parse_math=False
    )
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)
    _name(figure, axes, names)
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.4, columnspacing=1.2)
    return figure


def _beside(axes: Any, bars: Sequence[Bar], xlabel: str) -> None:
    values = [bar.beside or 0.0 for bar in bars]
    axes.barh(range(len(bars)), values, height=0.36, color=FAINT)
    _words(axes, values, ["" if bar.beside is None else f"{bar.beside:,.0f}" for bar in bars])
    axes.locator_params(axis="x", nbins=3)  # it is narrow
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)


def _name(figure: Any, axes: Any, names: Sequence[tuple[str, int, float, float]]) -> None:
    """Each part in its longest piece, where there is room: part, bar, left end and width."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for part, k, left, width in names:
        text = axes.text(
            left + width / 2, k, part, ha="center", va="center", fontsize=9, color=ON_LIGHT
        )
        (start, _), (end, _) = axes.transData.transform([(left, 0), (left + width, 0)])
        if text.get_window_extent(renderer).width > 0.95 * (end - start):
            text.remove()


def _words(axes: Any, ends: Sequence[float], texts: Sequence[str]) -> None:
    """At the ends of bars, with room for them."""
    axes.set_xlim(0, 1.45 * max([*ends, 1e-9]))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", visible=False)
    for k, (x, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(
            text, (x, k), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
        )


def part_colours(order: Sequence[str]) -> dict[str, str]:
    """One colour for a part in all figures."""
    spare = itertools.cycle(_SPARE)
    return {part: _COLOURS.get(part) or next(spare) for part in order}
