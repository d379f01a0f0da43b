"""Does what was just written hold?  Asked before it is put in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cache.care.verify import verify
from cache.listing import found_files
from cache.schema import Manifest


def read_back(folder: Path, wanted: Manifest, tick: Callable[[int], None]) -> str:
    """Verify the new cache in `folder`: its first fault, in words, or nothing.

    `tick` counts shards alone, `verify` files before them.
    """
    files = len(found_files(folder)[0])
    seen = 0

    def shards_only(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > files:
            tick(count)

    report = verify(folder, shards_only)
    if report.faults:
        return f"{report.faults[0].where}: {report.faults[0].what}"
    return "" if report.manifest == wanted else "another manifest"
