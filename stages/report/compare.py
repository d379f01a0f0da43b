"""What `lgr-pipe report --compare A B` says of two sets of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.report.numbers.pairing import alone, pairs
from stages.report.page.document import Block, Document, Facts, Paragraph, quoted
from stages.report.page.walk import tables
from stages.report.reading.runs import Study
from stages.report.sections.compared import section


def compare(a: Sequence[Study], b: Sequence[Study], names: tuple[str, str]) -> Document:
    """`names`: of the two sets, such as their folders.

    Raises:
        Refused: nothing of one corresponds to anything of the other.
    """
    found = pairs(a, b, names)
    lead: list[Block] = [
        Facts((("A", quoted(names[0])), ("B", quoted(names[1])))),
        Paragraph("All differences are B less A."),
    ]
    several = len(found) > 1
    sections = [
        section(pair, f"s{k}-" if several else "", f"{k}. " if several else "")
        for k, pair in enumerate(found, 1)
    ]
    for side, studies, taken in (
        ("A", a, [pair.a for pair in found]),
        ("B", b, [pair.b for pair in found]),
    ):
        left = alone(studies, taken)
        if left:
            said = "; ".join(quoted(one) for one in left)
            lead.append(Paragraph(f"Only in {side}, and not compared: {said}.", "warning"))
    title = f"{quoted(names[0])} and {quoted(names[1])} compared"
    return Document(title, tuple(lead), tuple(sections))


def comparison_json(document: Document) -> dict[str, Any]:
    """`tables`: exact numbers by table, fractions, seconds and bytes, null where unknown;
    `differing`: settings that A and B do not share, by section."""
    return {
        "differing": {
            section.key: dict(block.pairs)
            for section in document.sections
            for block in section.blocks
            if isinstance(block, Facts)
        },
        "tables": {
            table.name: [dict(zip(table.data.head, row, strict=True)) for row in table.data.rows]
            for table in tables(document)
        },
    }
