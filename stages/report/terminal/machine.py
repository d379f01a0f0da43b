"""The same for machines, as one JSON object: fractions, seconds, bytes; null where undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report.reading.find import Found, LeftOut
from stages.report.terminal.flat import table_rows


def as_json(found: Found) -> dict[str, Any]:
    """`studies`: each a list of rows as in table.csv; `left_out`: folders with the reason."""
    return {
        "studies": [
            [_plain(row) for row in table_rows(number, study)]
            for number, study in enumerate(found.studies, 1)
        ],
        "left_out": [left_out(out) for out in found.left_out],
    }


def left_out(out: LeftOut) -> dict[str, Any]:
    return {"folder": str(out.folder), "why": out.why, "again": out.again or None}


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if value != ""}
