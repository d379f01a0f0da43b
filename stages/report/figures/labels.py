"""Labels beside the marks of a figure, none upon another or upon what is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.figures.style import FAINT, PAPER

Mark = tuple[float, float, float]
"""x, y and the length of the bar to each side, as the axes have them."""
Boxes = NDArray[np.float64]
"""(n, 4): left, bottom, right, top in pixels."""


def _around() -> Iterator[tuple[float, float, str]]:
    """Where a label may stand: x and y from its mark (points of 1/72 inch), alignment."""
    for distance in (11, 20, 32, 46, 62, 80):
        for degrees in (0, 180, 40, -40, 140, -140, 65, -65, 115, -115, 90, -90):
            angle = math.radians(degrees)
            align = {1: "left", -1: "right", 0: "center"}[round(math.cos(angle))]
            yield distance * math.cos(angle), distance * math.sin(angle), align


def label(
    figure: Any, axes: Any, wanted: Sequence[tuple[Mark, str]], drawn: Sequence[Mark]
) -> list[str]:
    """Put each text at the nearest free place, with a thin line where that is not next to its
    mark; it is left out where there is none, and returned.  The figure must be finished but for
    this."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured from here on stays where it is
    renderer = figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    taken = _obstacles(axes, drawn, renderer)
    usual = {"textcoords": "offset points", "va": "center", "fontsize": 10, "zorder": 6}
    usual |= {"parse_math": False}
    # A box behind the words and no outline around them: in an SVG they stay words.
    box_style = {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"}
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    left_out = []
    for (x, y, _), text in wanted:
        for dx, dy, align in _around():
            note = axes.annotate(
                text, (x, y), xytext=(dx, dy), ha=align, bbox=box_style,
                arrowprops=line if math.hypot(dx, dy) > 15 else None, **usual,
            )  # fmt: skip
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer).padded(renderer.points_to_pixels(2.0))
            if _within(box, inside) and not _overlaps(box, taken):
                taken = np.vstack([taken, box.extents])
                break
            note.remove()
        else:
            left_out.append(text)
    return left_out


def _obstacles(axes: Any, drawn: Sequence[Mark], renderer: Any) -> Boxes:
    """Boxes of what labels must not lie upon: marks and their bars, lines, words."""
    scale = renderer.points_to_pixels(1.0)
    boxes = [note.get_window_extent(renderer).extents for note in axes.texts]
    for x, y, sd in drawn:
        (x, low), (_, y), (_, high) = axes.transData.transform([(x, y - sd), (x, y), (x, y + sd)])
        wide, thin = 5 * scale, 3 * scale
        boxes.append([x - wide, y - wide, x + wide, y + wide])
        boxes.append([x - thin, low - thin, x + thin, high + thin])
    for line in axes.lines:
        if line.get_linestyle() != "None" and len(line.get_xdata()):
            corners = line.get_transform().transform(line.get_path().vertices)
            for a, b in itertools.pairwise(corners):
                count = 2 + int(np.abs(b - a).max() / (8 * scale))
                boxes += [[*at, *at] for at in np.linspace(a, b, count)]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _within(box: Any, outer: Any) -> bool:
    return bool(
        outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1
    )


def _overlaps(box: Any, taken: Boxes) -> bool:
    left, bottom, right, top = taken.T
    apart = (right < box.x0) | (left > box.x1) | (top < box.y0) | (bottom > box.y1)
    return not bool(apart.all())
