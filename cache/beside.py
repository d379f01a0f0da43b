"""What will be OUT is made in a locked folder beside it, and put in place by one rename.

    .NAME.export-<random>/     next to NAME: at work, or left by a process that was killed
    .NAME.replaced-<random>/   with overwrite, the old folder NAME between two renames

The lock (flock on the folder) ends with its process, however that ends: a
folder that can be locked was left behind, and goes with the next run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from cache.errors import CacheExistsError, CacheUnfinishedError
from cache.files import put_in_place, refuse_url, remove_tree, sync

Word = Literal["convert", "export", "import", "repair"]
WORDS: tuple[str, ...] = get_args(Word)
"""What is made in such a folder; whoever looks for leftovers knows them by it."""


@contextmanager
def scratch(out: Path, word: Word) -> Iterator[Path]:
    """A locked folder `.NAME.<word>-<random>` next to `out`, gone at the end.

    Raises:
        CacheUnfinishedError: another run of the same took it for left over.
    """
    refuse_url(out)
    tidy(out, word)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = _beside(out, word)
    folder.mkdir()
    taken = CacheUnfinishedError(f"Another run makes {out} too: run the command again.")
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise taken from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)  # waits for whoever is deleting it
        if not folder.exists():
            raise taken
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing, where it was renamed
        os.close(handle)


def tidy(out: Path, word: Word) -> None:
    """Delete the folders that killed runs have left."""
    for path in _named(out, word):
        with contextlib.suppress(FileNotFoundError), held(path, unsure=False) as free:
            if free:
                remove_tree(path)


@contextmanager
def held(folder: Path, *, unsure: bool) -> Iterator[bool]:
    """True: nobody is at work in it, nor begins to before this ends; `unsure` where the file
    system has no locks.

    Raises:
        OSError: there is no such folder, or it is a link.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:
            free = unsure
        yield free
    finally:
        os.close(handle)


def put(made: Path, out: Path, *, overwrite: bool) -> None:
    """Rename the finished file or folder `made` to `out`, then delete what it replaces.

    Raises:
        CacheExistsError: `out` has come to be meanwhile and `overwrite` is not set.
    """
    taken = CacheExistsError(f"{out} has been made meanwhile.")
    if made.is_dir():
        try:
            put_in_place(made, out, _beside(out, "replaced") if overwrite else None)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise taken from None
    elif overwrite:
        made.replace(out)
    else:
        try:
            os.link(made, out)  # unlike a rename, it fails where something is
        except FileExistsError:
            raise taken from None
        except OSError:  # a file system without hard links
            if out.exists():
                raise taken from None
            made.replace(out)
    sync(out.parent)


def forget(out: Path) -> None:
    """`out` is in place: what was set aside for it goes."""
    for path in _named(out, "replaced"):
        remove_tree(path)


def _beside(out: Path, word: str) -> Path:
    return out.with_name(f".{out.name}.{word}-{uuid.uuid4().hex[:12]}")


def _named(out: Path, word: str) -> list[Path]:
    if not out.parent.is_dir():
        return []
    ours = re.compile(rf"{re.escape(f'.{out.name}.{word}-')}[0-9a-f]{{12}}")
    found = [path for path in out.parent.iterdir() if ours.fullmatch(path.name)]
    return [path for path in found if path.is_dir() and not path.is_symlink()]
