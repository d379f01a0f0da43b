"""Files and folders of strangers: what is no plain one is never opened.

A pipe would be waited for without end, a device or a folder that is a link leads elsewhere.
A link to a file is followed in a finished cache, where DVC may have put it, and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

from cache.errors import CacheDamagedError
from cache.source import Place

_DEEPEST = 12
"""Folders within folders that are looked into; a cache has seven."""


def refuse_strange_file(place: Place, limit: int) -> int:
    """Its size in bytes.

    Raises:
        CacheDamagedError: missing, no plain file, or larger than `limit`.
    """
    try:
        plain = place.is_file()
        size = place.stat().st_size if plain else 0
    except OSError as error:  # a name that is too long, or no permission on the way
        raise CacheDamagedError(f"{place} cannot be read: {error.strerror}.") from None
    if not plain:
        there = isinstance(place, Path) and os.path.lexists(place)
        raise CacheDamagedError(
            f"{place} is no plain file; not read." if there else f"{place} is missing."
        )
    if size > limit:
        raise CacheDamagedError(f"{place} is larger than {limit} bytes; not read.")
    return size


def read_plain(place: Place, limit: int) -> bytes:
    """All of a file of at most `limit` bytes.

    Raises:
        CacheDamagedError: as `refuse_strange_file`, or it cannot be read.
    """
    size = refuse_strange_file(place, limit)
    try:
        with place.open("rb") as handle:
            return handle.read(size)
    except OSError as error:
        raise CacheDamagedError(f"{place} cannot be read: {error.strerror}.") from None


def refuse_strange_folder(place: Place) -> None:
    """Raises CacheDamagedError: missing, no folder, or a link to one."""
    if isinstance(place, Path) and place.is_symlink():
        raise CacheDamagedError(f"{place} is a link, not a folder; not read.")
    if not place.is_dir():
        raise CacheDamagedError(f"{place} is missing.")


def below(folder: Path) -> tuple[list[str], list[str]]:
    """All files below a folder, and whatever is neither file nor folder, relative to it, sorted.

    Links to files are files; a link to a folder, a folder that cannot be listed or lies too deep
    is strange.
    """
    files: list[str] = []
    strange: list[str] = []
    waiting = [("", 0)]
    while waiting:
        inside, depth = waiting.pop()
        try:
            with os.scandir(folder / inside) as found:
                entries = list(found)
        except OSError:
            strange.append(inside or ".")
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False) and depth < _DEEPEST:
                waiting.append((name, depth + 1))
            else:
                (files if _is_file(entry) else strange).append(name)
    return sorted(files), sorted(strange)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False
