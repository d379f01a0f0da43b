"""What a document holds, in the order in which it is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from stages.report.page.document import Block, Document, Figure, Fold, Group, Section, Table
from stages.report.page.markup import plain

_NUMBER = re.compile(
    r"[^\w]*\d[\d.,]*(?:e[-+]?\d+)?(?:[^A-Za-z]*|\s*[A-Za-zµ%/]{1,7})(?: †)?", re.ASCII
)


def sections(document: Document) -> Iterator[Section]:
    """All, whatever their depth."""
    yield from _below(document.sections)


def _below(found: Sequence[Section]) -> Iterator[Section]:
    for section in found:
        yield section
        yield from _below(section.sections)


def tables(document: Document) -> list[Table]:
    return [block for block in _all_blocks(document) if isinstance(block, Table)]


def figures(document: Document) -> list[Figure]:
    return [block for block in _all_blocks(document) if isinstance(block, Figure)]


def _all_blocks(document: Document) -> Iterator[Block]:
    yield from _opened(document.lead)
    for section in sections(document):
        yield from _opened(section.blocks)


def _opened(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from _opened(block.blocks)
        elif isinstance(block, Group):
            yield from block.figures


def check(document: Document) -> None:
    """Names become names of files and addresses in the page.

    Raises:
        ValueError: one is not [a-z0-9-]+, or two are equal: a mistake in the section's code.
    """
    for kind, names in (
        ("section", [section.key for section in sections(document)]),
        ("table", [table.name for table in tables(document)]),
        ("figure", [figure.name for figure in figures(document)]),
    ):
        wrong = [name for name in names if not re.fullmatch(r"[a-z0-9-]{1,120}", name)]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if wrong or twice:
            raise ValueError(f"{kind}: names that are no names {wrong}, not unique {twice}")


def of_numbers(table: Table) -> list[bool]:
    """For each column: is it one of numbers, to stand on the right?  The first never is."""
    found = [False]
    for column in range(1, len(table.head)):
        cells = [plain(row[column]).strip() for row in table.rows]
        numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in cells)
        words = sum(len(cell) > 12 for cell in cells if not _NUMBER.fullmatch(cell))
        found.append(numbers > 0 and words == 0)
    return found
