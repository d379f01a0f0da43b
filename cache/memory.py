"""How much memory there is to take: of the machine, and of the cgroups that hold this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from cache.errors import Refused

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that may still be taken: of the machine, and of this process's cgroups (v2)."""
    machine = int(psutil.virtual_memory().available)
    return min([machine, *_cgroup_rooms(_own_cgroup(), _CGROUPS)])


def refuse_more_than_free(size: int, what: str) -> None:
    """Raise Refused where `size` bytes are more than may be taken: systems promise more memory
    than they have, and then kill."""
    free = available_memory()
    if size > free:
        raise Refused(
            f"{what} would take {size / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: "
            "use a machine with more, or allow this process more."
        )


def _own_cgroup() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return "/"
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def _cgroup_rooms(own: str, root: Path) -> Iterator[int]:
    """Limit less use of each cgroup from `own` up; files that are cached can be given up."""
    folder = root / own.strip("/")
    for level in [folder, *folder.parents]:
        if level != root and root not in level.parents:
            return
        try:
            limit = int((level / "memory.max").read_text())  # "max": no limit
            used = int((level / "memory.current").read_text())
            lines = (level / "memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            yield max(0, limit - used + int(stat.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue
