"""Words in figures: how much room they take, and where they stand at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence

SMALL = 9.0
"""Points: the smallest letters that are legible at half size."""
_LETTER = 0.085
"""Inches, of a letter of that size: a wide one, so that there is always room."""


def short(text: str, most: int) -> str:
    """Of at most so many letters: variants of a name differ at its end, so the middle goes.

    >>> short("lgr (generator_units 400)", 16)
    'lgr (ge…its 400)'
    """
    if len(text) <= most:
        return text
    head = most // 2 - 1 + most % 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def width(texts: Sequence[str]) -> float:
    """Inches of the longest."""
    return _LETTER * max((len(text) for text in texts), default=0)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as needed to be `gap` from each other and within low..high, in
    their order; nearer to each other where there is no room.

    >>> apart([1.0, 1.0, 5.0], 1.0, 0.0, 9.0)
    [0.5, 1.5, 5.0]
    """
    count = len(places)
    if not count:
        return []
    gap = min(gap, (high - low) / max(count - 1, 1))
    order = sorted(range(count), key=lambda k: places[k])
    # Groups of touching words: (sum of the wished places of their first, how many)
    groups: list[list[float]] = []
    for k in order:
        groups.append([places[k], 1.0, places[k]])
        while len(groups) > 1 and groups[-2][2] + groups[-2][1] * gap > groups[-1][2]:
            total, size, _ = groups.pop()
            groups[-1][0] += total - size * groups[-1][1] * gap
            groups[-1][1] += size
            groups[-1][2] = groups[-1][0] / groups[-1][1]
    found = [first + n * gap for _, size, first in groups for n in range(int(size))]
    for k in range(count):  # into the room, from below and then from above
        found[k] = max(found[k], low + k * gap)
    for k in range(count):
        found[-1 - k] = min(found[-1 - k], high - k * gap)
    placed = [0.0] * count
    for place, k in zip(found, order, strict=True):
        placed[k] = place
    return placed
