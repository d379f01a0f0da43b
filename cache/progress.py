"""How far is an unfinished cache?  Asked by those who only look."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cache.parts import Plan, read_plan, recorded
from cache.schema import scratch_folders


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
    plan = read_plan(folder) if name is not None else None
    if name is None or plan is None:
        return None
    units = len(plan.units)
    done = sum(unit < units for unit in recorded(folder))
    return Work(folder, folder.with_name(name[1]), plan, done)


def works(out: Path) -> list[Work]:
    """All work in progress for `out`."""
    found = (work_in(folder) for folder in scratch_folders(out))
    return [work for work in found if work is not None]
