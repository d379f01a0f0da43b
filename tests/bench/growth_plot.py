"""The growth measurements as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe & Ito 2008
_MARKS = ("o", "s", "^")


@dataclass(frozen=True)
class Panel:
    x: str
    y: str
    lines: Mapping[str, Mapping[int, float]]
    """Name -> x -> y."""


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Side by side; x is logarithmic, y begins at 0 unless it spans more than a decade."""
    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained", dpi=150)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for (name, line), colour, mark in zip(panel.lines.items(), _COLOURS, _MARKS, strict=False):
            xs = sorted(line)
            axes.plot(xs, [line[x] for x in xs], color=colour, marker=mark, label=name)
        values = [y for line in panel.lines.values() for y in line.values() if y > 0]
        axes.set_xscale("log")
        xs = sorted({x for line in panel.lines.values() for x in line})
        axes.set_xticks(xs, [_short(x) for x in xs])
        axes.xaxis.set_minor_locator(NullLocator())
        if panel.y == "s" and max(values) > 10 * min(values):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.15 * max(values))
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E4E4E4")
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _short(x: int) -> str:
    return f"{x:.0e}".replace("e+0", "e") if x >= 1000 else str(x)
