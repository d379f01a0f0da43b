"""Files that are either wholly there or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from cache.errors import Refused
from cache.plain import below
from cache.printable import printable
from cache.source import Place


def sync(path: Path) -> None:
    """Force a file or folder to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Temp file in the same folder, fsync, rename, fsync of the folder.

    The mode is the umask's (unlike `tempfile`, whose 0600 would lock team
    mates out of a shared cache).
    """
    # Random, not the process number: containers that share a disk share those.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda handle: handle.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; NaN and infinities are refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A line at a time: a table of ten million rows has gigabytes."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    write_atomically(path, lambda h: h.writelines((encode(row) + "\n").encode() for row in rows))


def sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def put_in_place(new: Path, out: Path, aside: Path | None) -> None:
    """Rename the folder `new` to `out`, where nothing or an empty folder is.

    With `aside`, what is there now waits in it until that is done: killed in
    between, nothing is lost.

    Raises:
        OSError: without `aside`, something is there (the rename itself tells,
            so that two processes cannot both believe that there is not).
    """
    moved = aside is not None and out.exists()
    if aside is not None and moved:
        out.rename(aside)
    try:
        new.rename(out)
    except OSError:
        if aside is not None and moved and not out.exists():
            aside.rename(out)
        raise
    sync(out.parent)
    if aside is not None and moved:
        remove_tree(aside)


def refuse_url(out: Path) -> None:
    """Raise Refused where somebody means a bucket: what is written, is written to a folder."""
    if re.search(r"(?:^|/)(?:s3|gs|gcs|az|abfs|hdfs|file|https?):/", str(out)):
        raise Refused(
            f"{printable(out)} is no folder: only local folders can be written. Copy the finished "
            "cache with the tool of the bucket."
        )


def remove_tree(folder: Path) -> None:
    """Delete a folder of ours, as far as that is possible; a published cache may be read-only."""
    for name, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(name).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def refuse_full_disk(folder: Path, needed: int) -> None:
    """HDF5 does not survive a disk that fills up while a file is open.

    Raises:
        OSError: fewer than `needed` bytes are free where `folder` is.
    """
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"No room for {needed / 1e6:.0f} MB", str(folder))


def tree_bytes(path: Place) -> int:
    """Bytes of all files below `path`."""
    if not isinstance(path, Path):
        return sum(map(len, path.files().values()))
    return sum((path / name).stat().st_size for name in below(path)[0])
