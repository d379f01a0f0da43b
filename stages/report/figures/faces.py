"""Generated faces beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.figures.replay_bars import short
from stages.report.figures.style import WIDTH, canvas

_COLUMNS = 8
_CELL = (WIDTH - 0.1) / _COLUMNS
_MOST_PIXELS = 72
"""Of a side; larger ones are made smaller, for a page holds all of them."""
_WORD = 0.17
"""Inches, of a line of words."""
_LETTERS = 8
"""Of a class name, that stand above one picture."""


@dataclass(frozen=True)
class Pictures:
    title: str
    images: NDArray[np.uint8]
    """(m, S, S, 3), m at least 1."""
    names: tuple[str, ...]
    """(m,) classes."""


def draw(parts: Sequence[Pictures]) -> Any:
    """Each part under its title, in rows of eight, equal classes together."""
    heights = [_WORD * 1.7 + _rows(part) * (_CELL + _WORD) for part in parts]
    figure = canvas(WIDTH, sum(heights))
    figure.set_layout_engine("none")
    top = sum(heights)
    for part, height in zip(parts, heights, strict=True):
        _part(figure, part, top)
        top -= height
    return figure


def _rows(part: Pictures) -> int:
    return -(-len(part.images) // _COLUMNS)


def _part(figure: Any, part: Pictures, top: float) -> None:
    """`top`: inches from the bottom of the figure."""
    high = figure.get_figheight()
    figure.text(0.01, (top - _WORD * 0.8) / high, part.title, va="center", fontsize=9.5)
    order = sorted(range(len(part.images)), key=lambda k: part.names[k])
    first = top - _WORD * 1.6
    for at, k in enumerate(order):
        row, column = divmod(at, _COLUMNS)
        left, bottom = 0.05 + column * _CELL, first - (row + 1) * (_CELL + _WORD)
        axes = figure.add_axes(
            (left / WIDTH, bottom / high, 0.95 * _CELL / WIDTH, 0.95 * _CELL / high)
        )
        axes.imshow(_smaller(part.images[k]), interpolation="none")
        axes.set_axis_off()
        name = part.names[k]
        if column and part.names[order[at - 1]] == name:
            continue
        same = sum(part.names[j] == name for j in order[at : at + _COLUMNS - column])
        letters = _LETTERS * same
        axes.set_title(short(name, letters), fontsize=9, pad=1.5)


def _smaller(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(S, S, 3), S at most _MOST_PIXELS."""
    if len(image) <= _MOST_PIXELS:
        return image
    from PIL import Image

    size = (_MOST_PIXELS, _MOST_PIXELS)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
