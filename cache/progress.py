"""How far is an unfinished cache?  Asked by those who only look."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cache.parts import Plan
from cache.schema import MANIFEST_LIMIT, parse_json, scratch_folders
from cache.store import STORES


@dataclass(frozen=True)
class Work:
    """A scratch folder with a plan that can be read."""

    folder: Path
    out: Path
    """What it will be."""
    plan: Plan
    done: int
    """Units with a record; their rows are not read."""

    @property
    def total(self) -> int:
        return len(self.plan.units)


def work_in(folder: Path) -> Work | None:
    """None: no work in progress, or its plan is damaged or of another version."""
    name = re.fullmatch(r"\.(.+)\.work-[0-9a-f]{12}\.\d+\.\d+", folder.name)
    path = folder / "plan.json"
    try:
        if name is None or not path.is_file() or path.stat().st_size > MANIFEST_LIMIT:
            return None
        plan = Plan.model_validate(parse_json(path.read_bytes()))
        units = len(plan.units)
        records = folder / "records"
        numbers = {p.stem for p in records.iterdir() if p.suffix == ".json"}
    except (OSError, ValueError, OverflowError):
        return None
    if plan.store not in STORES:
        return None
    done = sum(n.isascii() and n.isdecimal() and int(n) < units for n in numbers)
    return Work(folder, folder.with_name(name[1]), plan, done)


def works(out: Path) -> list[Work]:
    """All work in progress for `out`."""
    found = (work_in(folder) for folder in scratch_folders(out))
    return [work for work in found if work is not None]
