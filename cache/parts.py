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
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.digest import hex_digests
from cache.errors import CacheDamagedError, CacheExistsError, CacheUnfinishedError
from cache.files import sync, write_atomically, write_json, write_json_lines
from cache.fingerprint import fingerprint
from cache.schema import SAMPLES, SCHEMA, Info, Kind, read_lines, scratch_folder, scratch_folders
from cache.store import STORES, Array, little_endian

_PLAN = "plan.json"


class Plan(BaseModel):
    """What is being made, complete enough for another process to finish it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = SCHEMA
    kind: Kind
    settings: dict[str, Any]
    """Everything that decides the content."""
    dtype: Literal["uint8", "float16", "float32"]
    row_shape: tuple[int, ...] = Field(min_length=1, max_length=4)
    rows: int = Field(ge=1)
    """Rows at the start; a unit may keep fewer of its own."""
    unit_rows: int = Field(ge=1)
    store: str
    """Where it is to end; parts are the same for both."""
    classes: tuple[str, ...]
    info: Info
    """As far as it is known before the work."""

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
        """Begin, or go on where an earlier or another process is.  Plan last: it says "ready"."""
        for name in ("parts", "records"):
            (self.scratch / name).mkdir(parents=True, exist_ok=True)
        if _read_plan(self.scratch) is None:
            if samples is not None:
                write_json_lines(self.scratch / SAMPLES, samples)
            write_json(self.scratch / _PLAN, self.plan.model_dump(mode="json"))
        sync(self.scratch.parent)
        return self

    def samples(self) -> list[dict[str, Any]]:
        """The rows as they were given to `start`."""
        return read_lines(self.scratch / SAMPLES)

    def todo(self, units: Iterable[int]) -> list[int]:
        return [unit for unit in units if not self.done(unit)]

    def done(self, unit: int) -> bool:
        try:
            self.read(unit)
        except Exception:  # whatever is wrong with a unit, the cure is to make it again
            return False
        return True

    def missing(self) -> list[int]:
        """Units without a record: quick, the rows are not read."""
        return [unit for unit in self.plan.units if not self._record_path(unit).is_file()]

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
            OSError, ValueError, KeyError: it is not finished.
            CacheDamagedError: the rows do not have their digests.
        """
        rows: Array = np.load(self._part_path(unit), allow_pickle=False)
        if hex_digests(rows) != self.record(unit)["digests"]:
            raise CacheDamagedError(f"{self._part_path(unit)} is not what was written.")
        return rows

    def record(self, unit: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self._record_path(unit).read_text())
        return record

    def note(self, unit: int) -> dict[str, Any]:
        note: dict[str, Any] = self.record(unit)["note"]
        return note

    def notes(self) -> Iterator[dict[str, Any]]:
        """The notes of all units, in order."""
        return (self.note(unit) for unit in self.plan.units)

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


def _read_plan(scratch: Path) -> Plan | None:
    try:
        plan = Plan.model_validate_json((scratch / _PLAN).read_bytes())
    except (OSError, ValidationError):
        return None
    return plan if plan.store in STORES else None


def unfinished(out: Path, kind: Kind) -> Parts:
    """The one work in progress for `out`.

    Raises:
        CacheUnfinishedError: there is none, or more than one.
    """
    plans = {folder: _read_plan(folder) for folder in scratch_folders(out)}
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
    return found[0]
