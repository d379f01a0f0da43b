"""Heat maps of shares: R, recall by class, confusion.

Cells have colours of their own, light or dark page, so what is written in them has too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.figures.style import FAINT, INK, PAPER, WIDTH, canvas, on
from stages.report.figures.words import SMALL, short, width

MAP = "cividis"
"""Told apart by colour-blind readers; brighter is more (Nuñez et al. 2018)."""
SCALE = "colour: 0 % dark blue, 100 % yellow, the same in all of these"
_PIXELS = 480
"""Of the longer side of a picture of cells."""
_LONGEST = 18
"""Letters of a name beside a row or a column."""


@dataclass(frozen=True)
class Heat:
    """Shares in 0..1; None is left empty."""

    cells: Sequence[Sequence[float | None]]
    rows: Sequence[str]
    """Names; or none, where there are too many."""
    columns: Sequence[str]
    cell: tuple[float, float]
    """Inches, width and height of one; narrower where the figure would be too wide."""
    x: str = ""
    y: str = ""
    digits: int | None = 0
    """Of the per cent in a cell; None: no numbers, but a scale beside."""
    zeros: bool = True
    """Nought is written too."""
    outlines: Sequence[tuple[int, int, int, int]] = ()
    """Left, top, right, bottom of what belongs together, counted in cells."""
    parts: Sequence[tuple[str, int, int]] = ()
    """Names for several rows in a row, at the right: name, first, one after the last."""
    steps: bool = False
    """A stair along the diagonal, right of which nothing has been learnt yet."""
    columns_above: bool = False


def draw(heat: Heat) -> Any:
    import matplotlib
    import numpy as np

    cells = np.array([[np.nan if v is None else v for v in row] for row in heat.cells])
    figure, axes = _room(heat, cells.shape)
    colours = matplotlib.colormaps[MAP].with_extremes(bad=(0, 0, 0, 0))
    # A grid of paths would be many times as long as this picture, and a pixel for each cell would
    # be smoothed by who enlarges it.
    times, (rows, columns) = max(1, _PIXELS // max(cells.shape)), cells.shape
    picture = axes.imshow(
        np.kron(cells, np.ones((times, times))),
        cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="none",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )  # fmt: skip
    _names(axes, heat, cells.shape)
    if max(cells.shape) <= 24:
        for k in range(1, cells.shape[0]):
            axes.axhline(k - 0.5, color=PAPER, linewidth=0.8)
        for k in range(1, cells.shape[1]):
            axes.axvline(k - 0.5, color=PAPER, linewidth=0.8)
    _outlines(axes, heat, cells.shape[0])
    if heat.digits is None:
        _scale(figure, axes, picture)
    else:
        _numbers(axes, cells, heat, colours)
    return figure


def _room(heat: Heat, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Laid out by hand: what there is and how large it is, is known, and it takes no time."""
    beside = 0.1 + width([short(name, _LONGEST) for name in heat.rows]) + 0.22 * bool(heat.y)
    names = [short(name, _LONGEST) for name in heat.columns]
    along = 0.1 + (width(names) if _upright(heat) else 0.2) + 0.22 * bool(heat.x)
    right = 0.12 + width([name for name, _, _ in heat.parts]) + 0.75 * (heat.digits is None)
    wide = min(shape[1] * heat.cell[0], WIDTH - beside - right)
    high = shape[0] * heat.cell[1]
    full = (beside + wide + right, along + high + 0.12)
    figure = canvas(*full)
    figure.set_layout_engine("none")
    bottom = 0.12 if heat.columns_above else along
    axes = figure.add_axes((beside / full[0], bottom / full[1], wide / full[0], high / full[1]))
    return figure, axes


def _upright(heat: Heat) -> bool:
    """Whether names of columns are too long to lie."""
    names = [short(name, _LONGEST) for name in heat.columns]
    return 0.88 * width(names) + 0.04 > heat.cell[0]


def _names(axes: Any, heat: Heat, shape: tuple[int, ...]) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, pad=2)
    axes.set_yticks(range(len(heat.rows)), [short(name, _LONGEST) for name in heat.rows])
    axes.set_xticks(
        range(len(heat.columns)),
        [short(name, _LONGEST) for name in heat.columns],
        rotation=90 if _upright(heat) else 0,
    )
    if heat.columns_above:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
    for name, first, after in heat.parts:
        axes.text(
            shape[1] - 0.42, (first + after - 1) / 2, name, va="center", fontsize=SMALL, color=FAINT
        )
    axes.set_xlabel(heat.x, fontsize=SMALL)
    axes.set_ylabel(heat.y, fontsize=SMALL)


def _outlines(axes: Any, heat: Heat, rows: int) -> None:
    paths = []
    for left, top, right, bottom in heat.outlines:
        x = [left, right, right, left, left]
        y = [top, top, bottom, bottom, top]
        paths.append((x, y))
    if heat.steps:
        x = [k + 1 for k in range(rows) for _ in range(2)]
        y = [v for k in range(rows) for v in (k, k + 1)]
        paths.append((x, y))
    for x, y in paths:
        for colour, thick in ((PAPER, 3.4), (INK, 1.4)):  # seen upon dark cells, too
            axes.plot(
                [v - 0.5 for v in x], [v - 0.5 for v in y], color=colour, linewidth=thick,
                clip_on=False, solid_joinstyle="miter",
            )  # fmt: skip


def _numbers(axes: Any, cells: Any, heat: Heat, colours: Any) -> None:
    for (i, j), value in _known(cells):
        if value == 0 and not heat.zeros:
            continue
        axes.text(
            j, i, f"{100 * value:.{heat.digits}f}", ha="center", va="center", fontsize=SMALL,
            color=on(colours(value)),
        )  # fmt: skip


def _known(cells: Any) -> list[tuple[tuple[int, int], float]]:
    import numpy as np

    return [(place, float(v)) for place, v in np.ndenumerate(cells) if not np.isnan(v)]


def _scale(figure: Any, axes: Any, picture: Any) -> None:
    box = axes.get_position()
    inch = 1 / figure.get_figwidth()
    side = figure.add_axes((1 - 0.62 * inch, box.y0, 0.1 * inch, box.height))
    bar = figure.colorbar(picture, cax=side, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    bar.ax.tick_params(length=0, labelsize=SMALL, pad=2)
    bar.outline.set_visible(False)
