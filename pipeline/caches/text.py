"""How reports on caches read, for people and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.fingerprint import Settings
from cache.printable import printable
from pipeline.console import bytes_text

if TYPE_CHECKING:
    from cache.care.diff import Diff
    from cache.care.verify import Fault, Recomputed, Report
    from cache.find import Found

CROP_OPTIONS = ("face_crop", "size", "margin", "on_missing", "upsample", "smallest_face")
_MOST = 20
"""Lines of a kind that a person is shown; JSON has all."""


def some(items: list[str]) -> str:
    """
    >>> some(["a", "b"])
    'a, b'
    """
    more = f" and {len(items) - _MOST} more" if len(items) > _MOST else ""
    return ", ".join(items[:_MOST]) + more


def crop_words(crops: Settings) -> str:
    """How crops were made, in a line: `crops` are the settings of a crop cache.

    >>> crop_words({"crop": {"face_crop": "off", "size": 32, "version": 2}})
    'face_crop off, size 32'
    """
    crop = crops.get("crop")
    said = crop if isinstance(crop, dict) else {}
    return ", ".join(f"{name} {said[name]}" for name in CROP_OPTIONS if name in said)


def fault_line(fault: Fault) -> str:
    places = []
    if fault.rows:
        places.append("rows " + some([f"{a}-{b}" if a < b else f"{a}" for a, b in fault.rows]))
    if fault.shards:
        places.append("shards " + some([str(shard) for shard in fault.shards]))
    return f"  {fault.where}: {fault.what}" + (f" ({'; '.join(places)})" if places else "")


def verify_text(report: Report) -> str:
    name, manifest, faults = printable(report.path), report.manifest, report.faults
    if not faults and manifest is not None:
        lines = [f"{name}: whole, {manifest.rows:,} {manifest.kind}, nothing wrong."]
    else:
        lines = [f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"]
        lines += [fault_line(fault) for fault in faults[:_MOST]]
        if len(faults) > _MOST:
            lines.append(f"  and {len(faults) - _MOST} more: --json lists them all")
    if report.recomputed is not None:
        lines.append(f"  {_recomputed(report.recomputed)}")
    return "\n".join([*lines, *(f"  Note: {note}" for note in report.notes)])


def _recomputed(found: Recomputed) -> str:
    rows = some([str(row) for row in found.rows])
    same = len(found.rows) - len(found.differing)
    return (
        f"Made again: {len(found.rows)} rows chosen by seed {found.seed} ({rows}); {same} agree, "
        f"largest difference {found.largest:g}."
    )


def verify_json(report: Report) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "ok": not report.faults,
        "faults": [asdict(fault) for fault in report.faults],
        "notes": report.notes,
        "recomputed": asdict(report.recomputed) if report.recomputed else None,
    }


def diff_text(a: Path, b: Path, found: Diff) -> str:
    lines = [
        f"{a} and {b} hold equal content." if found.same_content else f"{a} (A) and {b} (B) differ."
    ]
    if found.settings:
        lines.append("Settings that differ, A | B:")
        lines += [f"  {name}: {left} | {right}" for name, left, right in found.settings]
    if found.classes:
        lines.append(f"Classes, A: {some(found.classes[0])} | B: {some(found.classes[1])}")
    for side, ids in (("A", found.only_a), ("B", found.only_b)):
        if ids:
            lines.append(f"Rows only in {side}: {len(ids)}: {some(ids)}")
    if found.said:
        lines.append(f"Rows that differ in what they are: {len(found.said)}")
        lines += [f"  {i} {name}: {left} | {right}" for i, name, left, right in found.said[:_MOST]]
        if len(found.said) > _MOST:
            lines.append(f"  and {len(found.said) - _MOST} more: --json lists them all")
    if found.moved:
        lines.append(f"Rows at another place: {found.moved}")
    if not found.same_content:
        lines += _values(found)
    return "\n".join(printable(line) for line in lines)


def _values(found: Diff) -> list[str]:
    lines = [f"Columns that differ: {', '.join(found.columns) or 'none'}"]
    if found.shapes:
        lines.append(f"A row is {found.shapes[0]} in A, {found.shapes[1]} in B")
    largest = "" if found.largest is None else f", at most by {found.largest:g}"
    strange = f"; {found.infinite} with NaN or infinity" if found.infinite else ""
    return [*lines, f"Rows in both with other values: {found.values}{largest}{strange}"]


def found_json(found: Found) -> dict[str, Any]:
    manifest, work = found.manifest, found.work
    about = manifest or (work.plan if work else None)
    return {
        "path": str(found.path),
        "state": found.state,
        "kind": about.kind if about else None,
        "dataset": about.info.dataset if about else None,
        "backbone": (about.info.backbone or None) if about else None,
        "rows": about.rows if about else None,
        "store": about.store if about else None,
        "fingerprint": about.fingerprint if about else None,
        "bytes": found.bytes,
        "changed": found.changed,
        "units": work.total if work else None,
        "units_done": work.done if work else None,
        "problem": found.problem or None,
    }


def found_lines(all_found: list[Found], now: float | None = None) -> list[str]:
    """A table; `now` in seconds since the epoch."""
    now = time.time() if now is None else now
    rows = [("path", "kind", "data set", "backbone", "rows", "size", "age", "state")]
    for found in all_found:
        said = found_json(found)
        state: str = found.state
        if found.work:
            state = f"unfinished, {found.work.done} of {found.work.total} units"
        elif found.problem:
            state = "damaged manifest"
        rows.append(
            (
                said["path"], said["kind"] or "", said["dataset"] or "", said["backbone"] or "",
                f"{said['rows']:,}" if said["rows"] else "", bytes_text(found.bytes),
                age_text(now - found.changed), state,
            )
        )  # fmt: skip
    return aligned([tuple(printable(cell) for cell in row) for row in rows], right=(4, 5, 6))


def aligned(rows: Sequence[Sequence[str]], right: tuple[int, ...]) -> list[str]:
    """Lines of a table; the columns `right` (numbers) end below each other.

    >>> aligned([("a", "10"), ("bc", "5")], right=(1,))
    ['a   10', 'bc   5']
    """
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(widths[k]) if k in right else cell.ljust(widths[k])
            for k, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def age_text(seconds: float) -> str:
    """
    >>> age_text(90), age_text(7200), age_text(-1)
    ('1 min', '2 h', '0 min')
    """
    for size, word in ((86400, "d"), (3600, "h")):
        if seconds >= size:
            return f"{int(seconds // size)} {word}"
    return f"{max(0, int(seconds // 60))} min"
