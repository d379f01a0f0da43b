"""Work in progress: one file a unit, so that any number of processes can share the work.

    .NAME.work-<fingerprint>/  next to NAME, on the same file system
        plan.json              what is being made
        samples.jsonl          (crops) the rows, for whoever finishes
        parts/00000.npy        the rows of a unit: temp file, fsync, rename
        records/00000.json     then their digests and a note
        cache-<random>/        what will be NAME (writer.py)

A unit counts as done when its record is there and its rows have the digests
that the record says.  Two processes that make the same unit write the same
files; a unit made twice is the same unit.  A finished unit is
deleted only when the finished cache is in its place, or when no image of the
set can be used.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cache.digest import hex_digests
from cache.errors import CacheDamagedError, CacheExistsError, CacheUnfinishedError
from cache.files import sync, write_atomically, write_json, write_json_lines
from cache.fingerprint import fingerprint
from cache.limits import MOST_ROWS, ClassNames, Length, Model, Words, validated
from cache.plain import read_plain
from cache.schema import (
    MANIFEST_LIMIT,
    MOST_SHARD,
    SAMPLES,
    SCHEMA,
    Info,
    Kind,
    iter_lines,
    parse_json,
    scratch_folder,
    scratch_folders,
)
from cache.store import STORES, Array, little_endian
from cache.unit_files import Record, read_record, read_rows, refuse_links

PLAN = "plan.json"
_MOST_UNIT_ROWS = 1 << 16
MOST_UNITS = 1 << 23
"""All rows that there can be, 256 in a unit."""


class Plan(BaseModel):
    """What is being made, complete enough for another process to finish it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = SCHEMA
    kind: Kind
    settings: dict[str, Any]
    """Everything that decides the content."""
    dtype: Literal["uint8", "float16", "float32"]
    row_shape: tuple[Length, ...] = Field(min_length=1, max_length=4)
    rows: int = Field(ge=1, le=MOST_ROWS)
    """Rows at the start; a unit may keep fewer of its own."""
    unit_rows: Length
    store: Words
    """Where it is to end; parts are the same for both."""
    classes: ClassNames
    info: Info
    """As far as it is known before the work."""

    @model_validator(mode="after")
    def _bounded(self) -> Plan:
        row_bytes = math.prod(self.row_shape) * np.dtype(self.dtype).itemsize
        unit_rows = min(self.unit_rows, self.rows)
        if unit_rows > _MOST_UNIT_ROWS or unit_rows * row_bytes > MOST_SHARD:
            raise ValueError(
                f"a unit would have more than {_MOST_UNIT_ROWS} rows or {MOST_SHARD} bytes"
            )
        if len(self.units) > MOST_UNITS:
            raise ValueError(f"there would be more than {MOST_UNITS} units")
        return self

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings)

    @property
    def units(self) -> range:
        return range(-(-self.rows // self.unit_rows))

    def rows_of(self, unit: int) -> range:
        start = unit * self.unit_rows
        return range(start, min(start + self.unit_rows, self.rows))


class Parts:
    """The scratch folder of one plan."""

    def __init__(self, out: Path, plan: Plan) -> None:
        """Does not touch the disk."""
        self.out, self.plan = out.resolve(), plan
        self.scratch = scratch_folder(out, plan.fingerprint, plan.unit_rows)

    def start(self, samples: Iterable[dict[str, Any]] | None = None) -> Parts:
        """Begin, or go on where an earlier or another process is.  Plan last: it says "ready".

        Raises:
            CacheDamagedError: something in the scratch folder is a link.
        """
        refuse_links(self.scratch)
        for name in ("parts", "records"):
            (self.scratch / name).mkdir(parents=True, exist_ok=True)
        if self._of_another_version():
            for record in (self.scratch / "records").iterdir():
                record.unlink(missing_ok=True)
        if read_plan(self.scratch) is None:
            if samples is not None:
                write_json_lines(self.scratch / SAMPLES, samples)
            write_json(self.scratch / PLAN, self.plan.model_dump(mode="json"))
        sync(self.scratch.parent)
        return self

    def samples(self) -> Iterator[dict[str, Any]]:
        """The rows as they were given to `start`; one more at most."""
        return islice(iter_lines(self.scratch / SAMPLES), self.plan.rows + 1)

    def _of_another_version(self) -> bool:
        """There is a plan that can be read, and this version did not write it: its records say
        nothing."""
        try:
            raw = read_plain(self.scratch / PLAN, MANIFEST_LIMIT)
        except CacheDamagedError:  # none, or a disk that fails: no reason to throw work away
            return False
        return _parsed(raw) is None

    def todo(self, units: Iterable[int]) -> list[int]:
        if self._of_another_version():
            return list(units)
        return [unit for unit in units if not self.done(unit)]

    def done(self, unit: int) -> bool:
        try:
            self.read(unit)
        except Exception:  # whatever is wrong with a unit, the cure is to make it again
            return False
        return True

    def missing(self) -> list[int]:
        """Units without a record: quick, the rows are not read.

        Raises:
            CacheDamagedError: something in the scratch folder is a link.
        """
        refuse_links(self.scratch)
        there = recorded(self.scratch)
        return [unit for unit in self.plan.units if unit not in there]

    def write(self, unit: int, rows: Array, note: dict[str, Any]) -> None:
        """Put the rows that a unit keeps on the disk, then their record.

        `note` is JSON that the caller wants back from `note()`.

        Raises:
            CacheExistsError: the scratch folder vanished: another process has
                finished the cache.
        """
        plan = self.plan
        if rows.shape[1:] != plan.row_shape or rows.dtype != np.dtype(plan.dtype):
            raise ValueError(
                f"unit {unit} must be {plan.dtype} {plan.row_shape}, got {rows.dtype} {rows.shape}"
            )
        if len(rows) > len(plan.rows_of(unit)):
            raise ValueError(f"unit {unit} has at most {len(plan.rows_of(unit))} rows")
        plain = np.ascontiguousarray(rows, dtype=little_endian(plan.dtype))
        try:
            buffer = io.BytesIO()  # numpy's own writing of files loses the reason of a failure
            np.save(buffer, plain)
            write_atomically(self._part_path(unit), lambda h: h.write(buffer.getbuffer()))
            write_json(self._record_path(unit), {"digests": hex_digests(plain), "note": note})
        except FileNotFoundError:
            raise self.overtaken() from None

    def read(self, unit: int) -> Array:
        """The rows of a finished unit, checked against its record.

        Raises:
            FileNotFoundError: it is not finished.
            CacheDamagedError: it is not what was planned, or does not have its digests.
        """
        plan = self.plan
        path, most = self._part_path(unit), len(plan.rows_of(unit))
        rows = read_rows(path, plan.dtype, plan.row_shape, most)
        if hex_digests(rows) != self.record(unit).digests:
            raise CacheDamagedError(f"{path} is not what was written.")
        return rows

    def record(self, unit: int) -> Record:
        """
        Raises:
            FileNotFoundError: there is none.
            CacheDamagedError: it is not as it was written.
        """
        return read_record(self._record_path(unit), len(self.plan.rows_of(unit)))

    def note(self, unit: int) -> dict[str, Any]:
        return self.record(unit).note

    def notes(self) -> Iterator[dict[str, Any]]:
        """The notes of all units, in order."""
        return (self.note(unit) for unit in self.plan.units)

    def kept(self, unit: int, model: type[Model]) -> tuple[int, Model]:
        """How many rows the unit keeps, and its note as its maker has written it.

        Raises:
            CacheDamagedError: it is another.
        """
        record = self.record(unit)
        try:
            return len(record.digests), validated(model, record.note)
        except ValueError as error:
            raise self.damaged(unit, str(error)) from None

    def damaged(self, unit: int, what: str) -> CacheDamagedError:
        """The error for a unit whose note is readable JSON but none that its maker writes: `what`
        is wrong with it, and which folder to delete."""
        return CacheDamagedError(
            f"The note in {self._record_path(unit)} is not what was written ({what}). "
            f"Delete {self.scratch} and run the command again."
        )

    def discard(self) -> None:
        """Throw the work in progress away."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def discard_if_empty(self) -> None:
        """Leave nothing behind where no unit was finished."""
        if len(self.missing()) == len(self.plan.units):
            self.discard()

    def overtaken(self) -> CacheExistsError:
        return CacheExistsError(
            f"{self.scratch} vanished: another run is making {self.out} too, or has finished it. "
            "Run the command again to see."
        )

    def _part_path(self, unit: int) -> Path:
        return self.scratch / "parts" / f"{unit:05d}.npy"

    def _record_path(self, unit: int) -> Path:
        return self.scratch / "records" / f"{unit:05d}.json"


def read_plan(scratch: Path) -> Plan | None:
    """None: there is none, it is damaged, of another version, or belongs to another folder."""
    path = scratch / PLAN
    try:
        plan = None if path.is_symlink() else _parsed(read_plain(path, MANIFEST_LIMIT))
    except CacheDamagedError:
        return None
    if plan is None:
        return None
    key = scratch_folder(Path("x"), plan.fingerprint, plan.unit_rows).name.removeprefix(".x")
    return plan if scratch.name.endswith(key) else None


def _parsed(raw: bytes) -> Plan | None:
    """None: damaged, or of another version."""
    try:
        plan = validated(Plan, parse_json(raw))
    except ValueError:
        return None
    return plan if plan.store in STORES else None


def recorded(scratch: Path) -> set[int]:
    """Numbers of the units that have a record."""
    try:
        with os.scandir(scratch / "records") as found:
            names = [entry.name.partition(".") for entry in found]
    except OSError:
        return set()
    return {int(n) for n, _, end in names if end == "json" and n.isascii() and n.isdecimal()}


def unfinished(out: Path, kind: Kind) -> Parts:
    """The one work in progress for `out`.

    Raises:
        CacheUnfinishedError: there is none, or more than one.
        CacheDamagedError: something in its folder is a link.
    """
    plans = {folder: read_plan(folder) for folder in scratch_folders(out)}
    found = [Parts(out, plan) for plan in plans.values() if plan is not None and plan.kind == kind]
    if not found:
        raise CacheUnfinishedError(
            f"There is no unfinished work on {kind} for {out}: nothing to finalize."
        )
    if len(found) > 1:
        listed = "\n  ".join(str(parts.scratch) for parts in found)
        raise CacheUnfinishedError(
            f"There are several unfinished works for {out}, with different settings:\n  {listed}\n"
            "Delete those that are not wanted."
        )
    refuse_links(found[0].scratch)
    return found[0]
