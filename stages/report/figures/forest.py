"""Differences with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.style import FAINT, INK, PAPER, WIDTH, Look, canvas
from stages.report.figures.words import short

_LETTERS = 30
"""Of a name, at most."""


@dataclass(frozen=True)
class Tree:
    """A strategy's difference, in points; bounds are None for too few seeds."""

    label: str
    look: Look
    mean: float
    lower: float | None
    upper: float | None
    sure: bool
    """The interval excludes 0: a full mark."""


def draw(trees: Sequence[Tree], xlabel: str) -> Any:
    figure = canvas(WIDTH, 1.0 + 0.3 * len(trees))
    axes = figure.add_subplot()
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    for k, tree in enumerate(trees):
        ends = None
        if tree.lower is not None and tree.upper is not None:
            ends = [(tree.mean - tree.lower,), (tree.upper - tree.mean,)]
        axes.errorbar(
            [tree.mean], [k], xerr=ends, color=tree.look.colour, marker=tree.look.mark,
            markersize=7, elinewidth=1.6, markerfacecolor=tree.look.colour if tree.sure else PAPER,
        )  # fmt: skip
    axes.set_yticks(
        range(len(trees)), [short(tree.label, _LETTERS) for tree in trees], parse_math=False
    )
    axes.set_ylim(len(trees) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)
    for text, x, align in (("◂ A better", 0, "left"), ("B better ▸", 1, "right")):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
            color=FAINT, fontsize=9, ha=align,
        )  # fmt: skip
    return figure
