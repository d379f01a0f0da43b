"""Exact numbers as CSV."""

from __future__ import annotations

import csv
import io
import math

from stages.report.page.document import Data, Value

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(data: Data) -> str:
    """One line a row after the head; UTF-8, \\n; numbers in full, nothing where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_cell(name) for name in data.head])
    writer.writerows([_cell(value) for value in row] for row in data.rows)
    return out.getvalue()


def _cell(value: Value) -> str | int | float:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it: names of
    classes and runs come from strangers.  A number stays one, as text too."""
    if value is None:
        return ""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else ""
    if not isinstance(value, str):
        return int(value)
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
