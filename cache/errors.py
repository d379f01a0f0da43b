"""What can be wrong with a request, as one tree.

`Refused` is the root of every mistake that a user can make and mend, in all
rooms of the house: its text says what was required, what came, where, and
what to do next.  The command line prints it and leaves with exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Refused(Exception):
    """The request cannot be carried out as asked; nothing that was finished is lost."""


class CacheMissingError(Refused, FileNotFoundError):
    """There is no cache at this path."""


class CacheUnfinishedError(Refused):
    """The cache is not complete: its writer was interrupted."""


class CacheExistsError(Refused, FileExistsError):
    """The output path is taken."""


class CacheMismatchError(Refused, ValueError):
    """The cache is complete, but not the one that was asked for."""


class CacheDamagedError(Refused):
    """What is on disk is not what was written."""

    cache: Path | None = None
    """The finished cache that it was found in; None: it was none (work, a zip, a URL)."""


@contextmanager
def damage_in(place: object) -> Iterator[None]:
    """What is found damaged within is that of the finished cache `place`, if that is a folder."""
    try:
        yield
    except CacheDamagedError as error:
        if isinstance(place, Path):
            error.cache = error.cache or place
        raise
