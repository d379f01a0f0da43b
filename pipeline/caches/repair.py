"""Wire lgr-pipe cache repair: what is wrong, what it is made again from, and how that reads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cache.care.rebuild import Redone, Remake
from cache.care.repair import bring_back, forget_killed, repair, what_it_was
from cache.care.verify import Report, steps, verify
from cache.printable import printable
from cache.schema import MANIFEST, Manifest
from pipeline.caches.recheck import Given
from pipeline.caches.text import some
from pipeline.console import progress
from pipeline.how import cores


def mend(path: Path, given: Given, other: Path | None) -> Redone | None:
    """Repair the cache at `path`, from the equal cache `other` where it has what is missing; None:
    it is whole.

    Raises:
        Refused: there is no cache, or it cannot be made what it was; nothing was changed.
    """
    bring_back(path)
    report = _report(path)
    if not report.faults:
        forget_killed(path)
        return None
    wanted = what_it_was(path, other)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    steps = 2 * wanted.shards
    with _source(path, wanted, given) as remake, progress("repair", steps, "shards") as tick:
        return repair(path, wanted, report, other, remake, made=made, tick=tick)


def _report(path: Path) -> Report:
    if path.is_dir() and not (path / MANIFEST).is_file():
        report = Report(path)
        report.add(MANIFEST, "is missing.")
        return report
    with progress(f"verify {path.name}", steps(path), "files and shards") as tick:
        return verify(path, tick)


def _source(path: Path, wanted: Manifest, given: Given) -> AbstractContextManager[Remake]:
    """Torch and dlib are imported only where they may be needed."""
    if wanted.kind == "latents":
        from pipeline.caches.recompute import LatentsAgain

        return LatentsAgain(path, wanted, given.crops, given.weights)
    from pipeline.caches.recrop import CropsAgain

    return CropsAgain(path, wanted, given.root, cores())


def repair_json(path: Path, redone: Redone | None) -> dict[str, Any]:
    return {"path": str(path), "repaired": redone is not None, **asdict(redone or Redone())}


def repair_text(path: Path, redone: Redone | None) -> str:
    name = printable(path)
    if redone is None:
        return f"{name}: whole, nothing to repair."
    said = {
        "shards made again": [f"number {shard}" for shard in redone.made],
        "shards of the equal cache": [f"number {shard}" for shard in redone.taken],
        "columns restored": redone.columns,
        "files restored": redone.files,
        "files dropped": [printable(file) for file in redone.dropped],
    }
    lines = [f"  {what}: {some(those)}" for what, those in said.items() if those]
    if not (redone.made or redone.taken or redone.columns or redone.files):
        lines.append("  all rows were as they were written; what lies around them was renewed")
    lines += [f"  Note: {note}" for note in redone.notes]
    if redone.same_bytes:
        lines.append("  every file is, byte by byte, what it was when the cache was made")
    return "\n".join([f"{name}: repaired, with the content that its manifest states.", *lines])
