"""The files of a unit of work, read as a stranger's: whoever finishes a cache may have got the
scratch folder from somewhere, and a job that was killed may have left anything.

Links are refused here, other than in a finished cache: nobody makes any, and what is written or
deleted through one lies elsewhere.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cache.errors import CacheDamagedError
from cache.limits import validated
from cache.schema import MANIFEST_LIMIT, parse_json
from cache.store import Array, little_endian

_RECORD_BASE, _RECORD_ROW = 1 << 16, 1 << 13
"""Bytes of a record, and of each row's part in it."""
_HEADER = 1 << 10  # characters of a .npy header; ours have 118


class Record(BaseModel):
    """What says that a unit is done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digests: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    """Of the rows that the unit keeps."""
    note: dict[str, Any]
    """What the maker of the unit wants back; not looked into here."""


def read_record(path: Path, most_rows: int) -> Record:
    """
    Raises:
        FileNotFoundError: there is none.
        CacheDamagedError: too large, or not as it is written.
    """
    size = _plain(path, min(_RECORD_BASE + most_rows * _RECORD_ROW, MANIFEST_LIMIT))
    with path.open("rb") as handle:
        raw = handle.read(size)
    try:
        record = validated(Record, parse_json(raw))
    except ValueError as error:
        raise CacheDamagedError(f"{path} is no record of a unit: {error}.") from None
    if len(record.digests) > most_rows:
        raise CacheDamagedError(
            f"{path} has digests of {len(record.digests)} rows, its unit {most_rows} rows."
        )
    return record


def read_rows(path: Path, dtype: str, row_shape: tuple[int, ...], most_rows: int) -> Array:
    """A .npy of at most so many rows of this shape; memory is taken when its header and its size
    agree with that.

    Raises:
        FileNotFoundError: there is none.
        CacheDamagedError: it is another array.
    """
    row_bytes = math.prod(row_shape) * np.dtype(dtype).itemsize
    size = _plain(path, _HEADER + most_rows * row_bytes)
    wanted = f"{dtype} of {' x '.join(map(str, row_shape))}, at most {most_rows} rows"
    with path.open("rb") as handle:
        try:
            version = np.lib.format.read_magic(handle)
            header = np.lib.format.read_array_header_1_0(handle, max_header_size=_HEADER)
        except Exception:  # a header is a Python literal: many things can be wrong with it
            raise CacheDamagedError(f"{path} is no .npy file of {wanted}.") from None
        shape, fortran, found = header
        exact = version == (1, 0) and not fortran and found == little_endian(dtype)
        rows = shape[0] if shape[1:] == row_shape and len(shape) else -1
        if not exact or not 0 <= rows <= most_rows or size != handle.tell() + rows * row_bytes:
            raise CacheDamagedError(f"{path} does not hold {wanted}.")
        return np.fromfile(handle, found, rows * math.prod(row_shape)).reshape(rows, *row_shape)


def refuse_links(scratch: Path) -> None:
    """Nothing directly in a scratch folder is a link, nor is the folder itself.

    Raises:
        CacheDamagedError: something is.
    """
    _refuse_link(scratch)
    try:
        with os.scandir(scratch) as found:
            links = sorted(entry.name for entry in found if entry.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return
    if links:
        _refuse_link(scratch / links[0])


def _plain(path: Path, limit: int) -> int:
    """Its size in bytes.  What is missing is an OSError like any other: another process may have
    finished the cache and deleted it."""
    said = path.lstat()
    _refuse_link(path)
    if not stat.S_ISREG(said.st_mode):
        raise CacheDamagedError(f"{path} is no plain file; not read.")
    if said.st_size > limit:
        raise CacheDamagedError(f"{path} is larger than {limit} bytes; not read.")
    return said.st_size


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise CacheDamagedError(
            f"{path} is a link, which unfinished work never holds; delete it and run the command "
            "again."
        )
