"""How all figures of a report look: one colour, mark and line for each strategy everywhere.

Colours: Okabe & Ito 2008, told apart by colour-blind readers; none and joint, the two ends, are
neutral.  A figure is at most 5.6 inches wide, so that a phone shows it at nearly full size.
Ink, grid and paper are colours that nothing else uses: a page puts its own in their place,
light or dark.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cache.printable import printable

INK, FAINT, GRID, PAPER = "#1c1c21", "#6b6b73", "#e2e2e7", "#fefefe"
WIDTH, HEIGHT = 5.6, 3.4
"""Inches, of a usual figure."""
ALARM = "#c0392b"
"""Something is broken."""
ON_LIGHT, ON_DARK = "#1b1b1e", "#fdfdfd"
"""Words upon a coloured cell (see `on`): they stay as they are when the page turns dark."""

_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*")


@dataclass(frozen=True)
class Look:
    """Of a strategy."""

    colour: str
    mark: str
    line: str | tuple[int, tuple[int, ...]]
    """matplotlib's word for its dashes."""


_LOOKS = {
    "none": Look("#8a8a93", "x", "--"),
    "joint": Look(INK, "*", ":"),
    "cumulative": Look(INK, "P", "-."),
    "nr": Look("#E69F00", "s", "-"),
    "lr": Look("#56B4E9", "D", "-"),
    "dgr": Look("#D55E00", "v", "-"),
    "lgr": Look("#0072B2", "o", "-"),
    "dgr+d": Look("#CC79A7", "^", "-"),
    "lgr+d": Look("#009E73", "h", "-"),
}


def look(strategy: str, variant: int = 0) -> Look:
    """Of a strategy, whatever else is in the figure; one that is not ours gets its own as well.
    Variants of one strategy, counted from 0, share the colour and differ in mark and line."""
    usual = _LOOKS.get(strategy)
    if usual is None:
        number = hashlib.sha256(strategy.encode()).digest()[0]
        usual = Look(_OKABE_ITO[number % len(_OKABE_ITO)], _MARKS[number % len(_MARKS)], "-")
    if not variant:
        return usual
    place = _MARKS.index(usual.mark) if usual.mark in _MARKS else 0
    mark = _MARKS[(place - variant) % len(_MARKS)]
    return Look(usual.colour, mark, ("--", "-.", ":", (0, (5, 1, 1, 1)))[(variant - 1) % 4])


def words(text: str) -> str:
    """Text of strangers for a label or a legend: $ means $, nothing is a formula."""
    return printable(text).replace("$", r"\$")


def on(colour: Any) -> str:
    """What words are written in upon a cell of a heat map or a bar, for the most contrast.
    The colour: anything that matplotlib takes."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return ON_LIGHT if luminance > 0.18 else ON_DARK


_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9.5,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "errorbar.capsize": 2.5,
    "figure.facecolor": "none",
    "figure.dpi": 100,
    "svg.hashsalt": "lgr-pipe",
    "svg.fonttype": "none",  # words stay words: to be read aloud, found and copied
}


@contextmanager
def style() -> Iterator[None]:
    """Everything that a figure is made and written with happens inside."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def canvas(width: float = WIDTH, height: float = HEIGHT, **layout: Any) -> Any:
    """An empty matplotlib Figure, laid out by itself, without any window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **layout)
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Any) -> str:
    """Equal text for an equal figure.  Inside `style`."""
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def png(figure: Any) -> bytes:
    """On paper, 200 dots an inch.  Inside `style`."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return image.getvalue()
