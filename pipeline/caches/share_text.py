"""How `lgr-pipe cache gc` reads, for people and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.care.collect import Verdict
from cache.printable import printable
from pipeline.caches.text import age_text, aligned
from pipeline.console import bytes_text


def verdict_json(verdict: Verdict, failed: str | None) -> dict[str, Any]:
    return {
        "path": str(verdict.path),
        "goes": verdict.goes and failed is None,
        "why": failed or verdict.why,
        "bytes": verdict.bytes,
        "age_seconds": round(verdict.age, 3),
    }


def verdict_lines(found: list[Verdict], failed: dict[Path, str], *, dry_run: bool) -> list[str]:
    """A table, what goes first."""
    gone = "would go" if dry_run else "gone"
    rows = [("", "path", "size", "age", "why")]
    for verdict in sorted(found, key=lambda v: not v.goes):
        stays = not verdict.goes or verdict.path in failed
        rows.append(
            (
                "stays" if stays else gone, printable(verdict.path), bytes_text(verdict.bytes),
                age_text(verdict.age), failed.get(verdict.path, verdict.why),
            )
        )  # fmt: skip
    return aligned(rows, right=(2, 3))
