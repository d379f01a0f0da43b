"""Tables and pictures made of letters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Terminal:
    """What the reader has."""

    width: int = 80
    colour: bool = False
    blocks: bool = True
    """Else ASCII only: levels are digits."""

    def paint(self, text: str, how: str) -> str:
        codes = {"bold": "1", "faint": "2", "red": "1;31"}
        return f"\x1b[{codes[how]}m{text}\x1b[0m" if self.colour and text else text


def table(first: Sequence[str], cells: Sequence[Sequence[str]], terminal: Terminal) -> list[str]:
    """Columns `cells`, right-aligned, with `first` before them: below each other in so many parts
    as the width asks for."""
    start = max(map(len, first))
    parts: list[list[Sequence[str]]] = [[]]
    used = start
    for column in cells:
        wide = 2 + max(map(len, column))
        if parts[-1] and used + wide > terminal.width:
            parts.append([])
            used = start
        parts[-1].append(column)
        used += wide
    lines: list[str] = []
    for part in parts:
        lines += [""] if lines else []
        widths = [max(map(len, column)) for column in part]
        lines += [
            "  ".join(
                [first[k].ljust(start)]
                + [column[k].rjust(wide) for column, wide in zip(part, widths, strict=True)]
            ).rstrip()
            for k in range(len(first))
        ]
    return lines


def sparkline(values: Sequence[float | None], low: float, high: float, levels: str = BLOCKS) -> str:
    """A letter for each value; a blank for None.

    >>> sparkline([0.0, None, 0.5, 1.0], 0.0, 1.0)
    '▁ ▅█'
    """
    top = len(levels)
    return "".join(
        " " if v is None else levels[min(top - 1, max(0, int(top * (v - low) / (high - low))))]
        for v in values
    )


def fitted(row: Sequence[float | None], most: int) -> list[float | None]:
    """So many of them as there is room for, the last one among them."""
    step = math.ceil(len(row) / max(most, 1))
    return list(row[::-1][::step][::-1])


def bar(share: float, wide: int, blocks: bool = True) -> str:
    """
    >>> bar(0.5, 4), bar(0.5, 4, blocks=False)
    ('██  ', '##..')
    """
    if not blocks:
        full = round(share * wide)
        return "#" * full + "." * (wide - full)
    eighths = round(8 * share * wide)
    rest = _PARTS[eighths % 8] if eighths % 8 else ""
    return ("█" * (eighths // 8) + rest).ljust(wide)
