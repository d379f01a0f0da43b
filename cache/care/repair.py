"""Put a damaged cache right, and only what was written before in its place.

    .NAME.repair-<random>/     next to NAME: what will be NAME (rebuild.py fills it)
    .NAME.replaced-<random>/   the damaged NAME, for the moment between two renames

NAME itself is never written to: its files may be links into somebody's store.  It is locked
(flock) meanwhile, and the lock goes with it when it is renamed: what can be locked was left by a
run that was killed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cache.beside import Word, forget, put, scratch, tidy
from cache.care.read_back import read_back
from cache.care.rebuild import Rebuild, Redone, Remake, Tick
from cache.care.remains import Remains
from cache.care.verify import Report
from cache.errors import (
    CacheDamagedError,
    CacheExistsError,
    CacheMismatchError,
    CacheUnfinishedError,
    Refused,
)
from cache.files import refuse_full_disk, sync_tree
from cache.listing import expected_files, found_files, read_as_written
from cache.schema import MANIFEST, MANIFEST_LIMIT, Manifest, read_manifest
from cache.store import STORES

_WORD: Word = "repair"
"""In the name of the folder that it is made in (beside.py)."""


def what_it_was(path: Path, other: Path | None) -> Manifest:
    """The manifest of the damaged cache `path`; `other`: a cache that should equal it.

    Raises:
        CacheMissingError: there is no cache at `path`.
        CacheDamagedError, CacheUnfinishedError: its manifest cannot be read, and there is no other.
        CacheMismatchError: the other is no equal cache.
    """
    if other is None:
        return _own_manifest(path)
    theirs = read_manifest(other)
    if path.resolve() == other.resolve():
        raise CacheMismatchError(f"--from {other} is the damaged cache itself: name another.")
    try:
        own = read_manifest(path)
    except (CacheDamagedError, CacheUnfinishedError):
        if not path.is_dir():
            raise
        return _their_manifest(path, other, theirs)
    if own.content != theirs.content:
        raise CacheMismatchError(
            f"--from {other} does not hold what {path} should hold: content {theirs.content}, "
            f"expected {own.content}."
        )
    return own


def _own_manifest(path: Path) -> Manifest:
    try:
        return read_manifest(path)
    except (CacheDamagedError, CacheUnfinishedError) as error:
        if not path.is_dir():
            raise
        raise type(error)(
            f"{error} Without its manifest nothing tells what the cache should be: name an equal "
            "cache with --from, or else make it again."
        ) from None


def _their_manifest(path: Path, other: Path, theirs: Manifest) -> Manifest:
    """For a cache whose own is lost; its column `digest` must show that they are equal."""
    for store in STORES:
        wanted = theirs.model_copy(update={"store": store}).sealed()
        with closing(Remains(path, wanted)) as remains:
            if remains.column("digest") is not None:
                return wanted
    raise CacheMismatchError(
        f"The manifest of {path} cannot be read, and its rows are not, or cannot be shown to be, "
        f"those of {other}: nothing was changed. Delete {path} and copy the right cache there."
    )


def bring_back(path: Path) -> None:
    """Undo the first of the two renames, if a run was killed before the second."""
    path = path.resolve()
    if path.exists() or not path.parent.is_dir():
        return
    start = f".{path.name}.replaced-"
    left = [p for p in path.parent.iterdir() if p.name.startswith(start) and p.is_dir()]
    for aside in sorted(left, key=lambda p: p.stat().st_mtime)[-1:]:
        with _locked(aside):
            aside.rename(path)


def forget_killed(path: Path) -> None:
    """`path` is whole: what killed runs have left beside it goes."""
    path = path.resolve()
    with _locked(path):
        tidy(path, _WORD)
        forget(path)


def repair(
    path: Path,
    wanted: Manifest,
    report: Report,
    other: Path | None,
    remake: Remake,
    *,
    made: str,
    tick: Tick,
) -> Redone:
    """Make `path` what `wanted` says.  `report`: what verify found; `made`: the time, for
    provenance.  `tick` counts shards, each twice: written, then read back and checked.

    Raises:
        Refused: what is damaged cannot be made again as it was, another run is
            at work, or it was wrong when it was written; nothing was changed.
    """
    path = path.resolve()
    with ExitStack() as open_:
        open_.enter_context(_locked(path))
        refuse_full_disk(path.parent, wanted.columns[wanted.bulk].nbytes)
        folder = open_.enter_context(scratch(path, _WORD))
        own = open_.enter_context(closing(Remains(path, wanted)))
        equal = None
        if other is not None:
            update = {"samples_digest": wanted.samples_digest}  # for its table may be another
            theirs = read_manifest(other).model_copy(update=update)
            equal = open_.enter_context(closing(Remains(other, theirs)))
        redone = Redone(dropped=sorted(found_files(path)[0] - expected_files(wanted)))
        if _manifest_damaged(path):
            redone.files.append(MANIFEST)
        Rebuild(wanted, folder, own, equal, remake, redone, tick).fill(report, made)
        _check(folder, path, wanted, tick)
        sync_tree(folder)
        put(folder, path, overwrite=True)
    forget(path)
    return redone


def _manifest_damaged(path: Path) -> bool:
    try:
        read_manifest(path)
        read_as_written(path / MANIFEST, MANIFEST_LIMIT)
    except Refused:
        return True
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises CacheExistsError: another run has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheExistsError(
                f"Another run is repairing {folder}: wait for it, and run the command again."
            ) from None
        except OSError:
            pass  # a file system without locks for folders, such as NFS
        yield
    finally:
        os.close(handle)


def _check(folder: Path, path: Path, wanted: Manifest, tick: Tick) -> None:
    """Raise unless the new cache reads back without a fault."""
    says = read_back(folder, wanted, tick)
    if says:
        raise CacheDamagedError(
            f"{path} was not changed: with everything as the digests of its manifest ask for it, "
            f"it still has a fault ({says}), so it was wrong when it was written."
        )
