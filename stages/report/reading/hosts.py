"""Whether costs of runs may be compared: were they measured on the same machine?"""

from __future__ import annotations

from collections.abc import Iterable

from stages.report.reading.about import About
from stages.report.reading.runs import Run

_ALIKE = ("processor", "cores", "device", "gpu", "threads", "seeds_at_once")


def host(run: Run) -> str:
    """In words; empty where nothing is recorded."""
    about = run.about
    if about is None or not about.machine():
        return ""
    threads = about.threads
    return about.machine() + (f", {threads} thread{'s' * (threads > 1)}" if threads else "")


def hosts(runs: Iterable[Run]) -> list[list[Run]]:
    """Groups of runs whose records do not contradict each other; of what is recorded only."""
    groups: list[list[Run]] = []
    for run in runs:
        if not host(run):
            continue
        for group in groups:
            if all(_alike(run.about, other.about) for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _alike(a: About | None, b: About | None) -> bool:
    """What one of them does not record is no difference."""
    if a is None or b is None:
        return True
    names = [*_ALIKE] if a.processor or b.processor else [*_ALIKE, "platform"]
    pairs = ((getattr(a, name), getattr(b, name)) for name in names)
    return all(x == y or not x or not y for x, y in pairs)
