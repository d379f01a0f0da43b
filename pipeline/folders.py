"""Folders that caches are looked for in where none is named."""

from __future__ import annotations

import os
from pathlib import Path

from cache.errors import Refused

CACHE_ROOT_VARIABLE = "LGR_PIPE_CACHE_ROOT"
LOCAL_FOLDERS = "data and caches, or ."
FOLDERS_OF_CACHES = f"data, caches and ${CACHE_ROOT_VARIABLE}, or ."


def folders_of_caches(named: Path | None, *, shared: bool) -> list[Path]:
    """Where caches are looked for: in `named`; or else in data, in caches and, if `shared`, in the
    cache root of the environment, as far as they are there; or else here.

    Raises:
        Refused: no such folder.
    """
    if named is not None:
        if not named.is_dir():
            raise Refused(f"There is no folder {named} to look through.")
        return [named]
    found = [Path(name) for name in ("data", "caches") if Path(name).is_dir()]
    if not shared:
        return found or [Path()]
    root = Path(os.environ.get(CACHE_ROOT_VARIABLE) or "data")
    inside = any(root.resolve().is_relative_to(folder.resolve()) for folder in found)
    return found + ([root] if root.is_dir() and not inside else []) or [Path()]
