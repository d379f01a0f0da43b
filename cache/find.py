"""Which caches lie below a folder?  Nothing is opened but manifests and plans."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cache.errors import CacheDamagedError
from cache.files import tree_bytes
from cache.progress import Work, work_in
from cache.schema import MANIFEST, SAMPLES, Manifest, read_manifest

DEEPEST = 64
"""Folders within folders that are looked into."""

State = Literal["finished", "unfinished", "damaged", "set aside"]


@dataclass(frozen=True)
class Found:
    """A cache, or work on one."""

    path: Path
    """Where it is, or of work: where it will be."""
    state: State
    """set aside: left by a command that was killed (care/collect.py); unfinished: see `work`."""
    bytes: int
    changed: float
    """Seconds since the epoch: of the manifest, of work: of its last record."""
    manifest: Manifest | None = None
    work: Work | None = None
    problem: str = ""
    """What is wrong with the manifest."""


def find(root: Path) -> Iterator[Found]:
    """All below `root`, or `root` itself, sorted by path; links to folders of caches count."""
    if (root / MANIFEST).is_file():
        yield _cache(root)
        return
    for folder, names, _ in os.walk(root):
        here = Path(folder)
        for name in sorted(names):
            try:
                found = _look(here / name)
            except OSError:  # renamed or deleted meanwhile, or not for us to read
                found = None
            if found is not None:
                yield found
            if found is not None or name.startswith("."):
                names.remove(name)
        names[:] = [] if len(here.relative_to(root).parts) >= DEEPEST else sorted(names)


def _look(path: Path) -> Found | None:
    if ".work-" in path.name or ".replaced-" in path.name:
        work = work_in(path)
        if work is not None:
            changed = max((p.stat().st_mtime for p in (path / "records").iterdir()), default=0.0)
            changed = changed or path.stat().st_mtime
            return Found(work.out, "unfinished", tree_bytes(path), changed, work=work)
    stored = any((path / name).exists() for name in ("data.zarr", "data.h5"))
    if (path / MANIFEST).is_file():
        return _cache(path) if stored or (path / SAMPLES).exists() else None
    if not stored or path.name.startswith("."):  # a store that is being made, or was killed
        return None
    lost = f"{path} has no {MANIFEST}: nothing tells what it was."
    return Found(path, "damaged", tree_bytes(path), path.stat().st_mtime, problem=lost)


def _cache(path: Path) -> Found:
    size, changed = tree_bytes(path), (path / MANIFEST).stat().st_mtime
    try:
        manifest = read_manifest(path)
    except CacheDamagedError as error:
        return Found(path, "damaged", size, changed, problem=str(error))
    except PermissionError as error:
        return Found(path, "damaged", size, changed, problem=f"{path}: {error.strerror}")
    aside = re.match(r"\..+\.(replaced|convert|repair)-", path.name, re.DOTALL)
    return Found(path, "set aside" if aside else "finished", size, changed, manifest=manifest)
