"""What a report says, free of how it is written: HTML, Markdown, CSV and LaTeX are made of this.

Text is Markdown of the simplest kind: **bold**, *emphasis*, `code` and [words](#section).
Whatever comes from a file goes through `quoted` first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Value = str | float | int | None
"""As CSV has it: exact; None is an empty cell."""


def quoted(text: str) -> str:
    r"""Text that means nothing but itself.

    >>> quoted("a*b")
    'a\\*b'
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


@dataclass(frozen=True)
class Paragraph:
    text: str
    kind: Literal["plain", "note", "warning", "alarm"] = "plain"
    """note: aside, small; warning: what limits a figure's meaning; alarm: something is broken,
    said in red."""


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and what holds of it."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Commands or other text to be copied."""

    text: str


@dataclass(frozen=True)
class Data:
    """Exact numbers of a table or a figure, for CSV: fractions, seconds, bytes."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading."""

    name: str
    """Of its files, unique in a report: [a-z0-9-]."""
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """For people."""
    data: Data
    note: str = ""
    printed: bool = True
    """LaTeX is made of it too."""


@dataclass(frozen=True)
class Figure:
    """One picture; `draw` makes a matplotlib Figure in the report's style (figures/style.py)."""

    name: str
    """Of its files, unique in a report: [a-z0-9-]."""
    title: str
    alt: str
    """What it shows, with its main numbers, for who cannot see it.  No Markdown."""
    draw: Callable[[], Any]
    caption: str = ""
    """How to read it: units, n, spread."""
    data: Data | None = None
    """What is drawn."""


@dataclass(frozen=True)
class Group:
    """Figures side by side where there is room: small multiples."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Fold:
    """What few will want to read, closed at first."""

    title: str
    blocks: tuple[Block, ...]


Block = Paragraph | Facts | Code | Table | Figure | Group | Fold


@dataclass(frozen=True)
class Section:
    key: str
    """Its address in the page, unique: [a-z0-9-]."""
    title: str
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Document:
    title: str
    lead: tuple[Block, ...]
    """Before the first section: what a reader in a hurry must know."""
    sections: tuple[Section, ...]


def paragraphs(lines: Sequence[str]) -> tuple[Paragraph, ...]:
    return tuple(Paragraph(line) for line in lines)
