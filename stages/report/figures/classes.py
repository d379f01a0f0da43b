"""How many images there are of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.report.figures.style import FAINT, INK, WIDTH, canvas


def classes(bars: Sequence[tuple[str, str, int, int]]) -> Any:
    """(class, task, training images, test images) each, from the top; a line between tasks."""
    figure = canvas(WIDTH, 0.8 + 0.3 * len(bars))
    axes = figure.add_subplot()
    places = range(len(bars))
    train, test = [bar[2] for bar in bars], [bar[3] for bar in bars]
    axes.barh([p - 0.18 for p in places], train, 0.34, color=INK, label="training")
    axes.barh(
        [p + 0.18 for p in places], test, 0.34, color="none", edgecolor=INK, hatch="////",
        linewidth=0.8, label="test",
    )  # fmt: skip
    axes.set_yticks(places, [_short(bar[0]) for bar in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for place in range(1, len(bars)):
        if bars[place][1] != bars[place - 1][1]:
            axes.axhline(place - 0.5, color=FAINT, linewidth=0.6)
    axes.set_xlabel("images; lines part the tasks")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"
