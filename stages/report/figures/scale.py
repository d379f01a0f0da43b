"""Axes for costs: they span decades, and some are nought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_NOUGHT = 0.4
"""Decades that the way from 0 to the least value takes."""
_STEPS = ((30, (1, 2, 3, 5)), (100, (1, 2, 5)), (2000, (1, 3)), (math.inf, (1,)))
"""Ticks of a decade, by how far the axis reaches."""
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def fit(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic x axis where values >= 0 span more than a factor of 5, else one from 0; with
    zeros the logarithmic one goes on linearly from the least value to 0."""
    from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator

    low, high = _ends(values)
    zeros = min(values, default=0) < low
    if not logarithmic(values):
        axes.set_xlim(-0.06 * high, 1.12 * high)
        return
    reach = high / low
    steps = next(s for most, s in _STEPS if reach < most)
    room = reach**0.09  # of the axis, beyond the last value
    if zeros:
        axes.set_xscale("symlog", linthresh=low, linscale=_NOUGHT)
        locator: Any = SymmetricalLogLocator(base=10, linthresh=low, subs=steps)
        axes.set_xlim(-0.25 * low, high * room)
    else:
        axes.set_xscale("log")
        locator = LogLocator(subs=steps)
        axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(lambda value, _: plain(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if zeros:
        axes.xaxis.set_minor_locator(LogLocator(subs=()))


def logarithmic(values: Sequence[float]) -> bool:
    """Whether `fit` makes the axis so.

    >>> logarithmic([0.0, 1.0, 4.0]), logarithmic([0.0, 1.0, 6.0])
    (False, True)
    """
    low, high = _ends(values)
    return high > 5 * low


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The least value above 0 and the largest; what is far smaller than this is 0 to the eye."""
    high = max(values, default=0) or 1.0
    return min([value for value in values if value > 1e-9 * high] or [high]), high


def plain(value: float) -> str:
    """As ticks show it.

    >>> plain(0.5), plain(2000.0), plain(3e6)
    ('0.5', '2,000', '3e6')
    """
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        return f"{value / 10**exponent:g}e{exponent}"
    return f"{value:,g}" if abs(value) < 1e5 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Three figures, in the unit that reads best.

    >>> duration(2.345), duration(13.02), duration(192), duration(61_000)
    ('2.35 s', '13.0 s', '3.20 min', '16.9 h')
    """
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{three(seconds / size)} {unit}"
    return f"{three(seconds)} s"


def megabytes(count: float) -> str:
    """
    >>> megabytes(16_368_960), megabytes(0), megabytes(850e6), megabytes(20_000)
    ('16.4 MB', '0 MB', '850 MB', '0.0200 MB')
    """
    return f"{three(count / 1e6)} MB"


def three(value: float) -> str:
    """Three figures.

    >>> three(0.0151), three(13.0), three(1170.2), three(0), three(2.5e9)
    ('0.0151', '13.0', '1,170', '0', '2.5e+09')
    """
    if value >= 1e7 or 0 < value < 1e-4:
        return f"{value:.3g}"
    if value == 0 or value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")
