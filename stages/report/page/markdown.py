"""The report as one Markdown text, which also reads well as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from stages.report.page.document import (
    Block,
    Code,
    Document,
    Facts,
    Figure,
    Fold,
    Group,
    Paragraph,
    Section,
    Table,
)
from stages.report.page.markup import markdown as inline
from stages.report.page.markup import plain, shown
from stages.report.page.walk import of_numbers, sections

SAID = {"note": "Note", "warning": "Take care", "alarm": "Alarm"}
"""Of a paragraph that is not plain: a word, never a colour alone."""


def markdown(document: Document, *, files: bool = True) -> str:
    """Figures and tables are those beside it: figures/NAME.png, tables/NAME.csv.  Without
    `files`, as in a terminal, figures are left out and nothing beside it is named."""
    slugs = _slugs(document)

    def text(words: str) -> str:
        return inline(words, slugs=lambda key: slugs.get(key, ""))

    parts = [f"# {text(document.title)}", *_blocks(document.lead, text, files)]
    parts += _sections(document.sections, 2, text, files)
    return "\n\n".join(parts) + "\n"


def _slugs(document: Document) -> dict[str, str]:
    """The address that GitHub and most others give a heading, by the key of its section."""
    used: dict[str, int] = {}
    found = {}
    for key, title in [("", document.title), *((s.key, s.title) for s in sections(document))]:
        slug = re.sub(r"[^\w\- ]", "", plain(title).lower()).replace(" ", "-")
        found[key] = slug + (f"-{used[slug]}" if slug in used else "")
        used[slug] = used.get(slug, 0) + 1
    return found


Words = Callable[[str], str]


def _sections(found: Sequence[Section], level: int, text: Words, files: bool) -> Iterator[str]:
    for section in found:
        yield f"{'#' * min(level, 6)} {text(section.title)}"
        yield from _blocks(section.blocks, text, files)
        yield from _sections(section.sections, level + 1, text, files)


def _blocks(blocks: Sequence[Block], text: Words, files: bool) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph(words, "plain"):
                yield text(words)
            case Paragraph(words, kind):
                yield f"> **{SAID[kind]}.** {text(words)}"
            case Facts(pairs):
                yield "\n".join(f"- **{text(term)}**: {text(what)}" for term, what in pairs)
            case Code(code):
                yield _code(code)
            case Table():
                yield from _table(block, text, files)
            case Figure() | Group() if not files:
                pass
            case Figure():
                yield from _figure(block, text)
            case Group(figures):
                for figure in figures:
                    yield from _figure(figure, text)
            case Fold(title, inside):
                yield f"**{text(title)}**"
                yield from _blocks(inside, text, files)


def _code(code: str) -> str:
    lines = [shown(line) for line in code.strip("\n").split("\n")]
    fence = "`" * max(3, 1 + max(len(run) for run in ["", *re.findall("`+", code)]))
    return "\n".join([fence, *lines, fence])


def _figure(figure: Figure, text: Words) -> Iterator[str]:
    yield f"*Figure:* {text(figure.title)}"
    alt = inline(re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", figure.alt))
    yield f"![{alt}](figures/{figure.name}.png)"
    data = f"[data](figures/{figure.name}.csv)" if figure.data else ""
    if figure.caption or data:
        yield " ".join(part for part in (text(figure.caption), data) if part)


def _table(table: Table, text: Words, files: bool) -> Iterator[str]:
    yield f"*Table:* {text(table.title)}"
    cells = [[inline(cell, cell=True) for cell in row] for row in (table.head, *table.rows)]
    yield aligned(cells, of_numbers(table))
    links = f"[CSV](tables/{table.name}.csv)" if files else ""
    if files and table.printed:
        links += f", [LaTeX](tables/{table.name}.tex)"
    if table.note or links:
        yield " ".join(part for part in (text(table.note), links) if part)


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[bool]) -> str:
    """A Markdown table whose columns also line up as plain text, numbers on the right."""
    widths = [max(3, *(len(row[k]) for row in rows)) for k in range(len(numbers))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numbers, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rules = [
        "-" * (width + 1) + ":" if right else "-" * (width + 2)
        for width, right in zip(widths, numbers, strict=True)
    ]
    return "\n".join([line(rows[0]), "|" + "|".join(rules) + "|", *map(line, rows[1:])])
