"""Fill a folder with what a damaged cache should be: copied where it is as it was written, else
taken from an equal cache, else made again.  A shard at a time.

Digests decide: those of the manifest, and of each row while column `digest` has its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cache.care.remains import Remains, first_intact, from_table
from cache.care.verify import Report
from cache.digest import column_digest, file_digest, row_digests
from cache.errors import CacheDamagedError, CacheMismatchError
from cache.files import write_json, write_json_lines
from cache.listing import read_provenance, without_list, write_provenance
from cache.provenance import versions
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, Manifest, attributes
from cache.store import Array, Bulk, StoreWriter, store_writer
from cache.table import read_table

Tick = Callable[[int], None]


class Remake(Protocol):
    """Makes again what a cache holds, from what it was made of; asked only where it must be.

    Each method may raise Refused, saying what must be given for it.
    """

    why_others: str
    """In sentences: why it may make other rows than were written, and what to do then."""

    def rows(self, start: int, stop: int, samples: Path) -> Array:
        """Crops or latents start..stop-1, as they are stored; `samples`: the whole sample table."""

    def side(self, name: str, samples: Path) -> Array:
        """A side column."""

    def table(self) -> Iterable[dict[str, Any]]:
        """The sample table."""


@dataclass
class Redone:
    """What was not as it was written."""

    made: list[int] = field(default_factory=list)
    """Shards that were made again."""
    taken: list[int] = field(default_factory=list)
    """Shards that were taken from the equal cache."""
    columns: list[str] = field(default_factory=list)
    """Side columns."""
    files: list[str] = field(default_factory=list)
    """Files beside the arrays."""
    dropped: list[str] = field(default_factory=list)
    """Files that do not belong to a cache."""
    notes: list[str] = field(default_factory=list)
    """What could not be saved."""
    same_bytes: bool = False
    """Each file is, byte by byte, what it was when the cache was first made."""


@dataclass
class Rebuild:
    """The work, and what it needs."""

    wanted: Manifest
    folder: Path
    """Where it is made; empty."""
    own: Remains
    other: Remains | None
    """Of an equal cache."""
    remake: Remake
    redone: Redone
    tick: Tick
    """Called with 1 for each shard."""

    @property
    def _copies(self) -> list[Remains]:
        return [self.own, *([self.other] if self.other else [])]

    @property
    def _samples(self) -> Path:
        return self.folder / SAMPLES

    def fill(self, report: Report, made: str) -> None:
        """All files, the manifest last.  `report`: on the damaged cache.

        Raises:
            Refused: something cannot be made again, or not as it was.
        """
        wanted = self.wanted
        self._table()
        side = {name: self._side(name) for name in wanted.columns if name not in self._by_rows}
        column = wanted.columns[wanted.bulk]
        bulk = Bulk(wanted.bulk, column.dtype, column.shape, wanted.shard_rows)
        writer = store_writer(wanted.store, self.folder, bulk)
        writer.create()
        side["digest"] = self._bulk(writer, bulk, suspects(report, wanted))
        said = attributes(wanted.fingerprint, wanted.settings, wanted.classes, wanted.info)
        writer.finish(side, said)
        self._provenance(made)
        write_json(self.folder / MANIFEST, wanted.model_dump(mode="json"))

    @property
    def _by_rows(self) -> tuple[str, str]:
        return self.wanted.bulk, "digest"

    def _table(self) -> None:
        tables = [copy.table() for copy in self._copies]
        found = next((table for table in tables if table is not None), None)
        if tables[0] is None:
            self.redone.files.append(SAMPLES)
        if found is not None:
            shutil.copyfile(found, self._samples)
            return
        write_json_lines(self._samples, self.remake.table())
        if file_digest(self._samples) != self.wanted.samples_digest:
            raise self._others(f"{SAMPLES}, made again, is not what was written.")

    def _side(self, name: str) -> Array:
        whole = self.own.column(name)
        if whole is not None:
            return whole
        self.redone.columns.append(name)
        declared = self.wanted.columns[name]
        taken = first_intact(self._copies[1:], name)
        if taken is not None:
            return taken
        said = from_table(read_table(self._samples, self.wanted), name, declared.dtype)
        if said is not None and column_digest(said) == declared.digest:
            return said
        values = self.remake.side(name, self._samples)
        if column_digest(values) != declared.digest or values.shape != declared.shape:
            raise self._others(f"Column {name}, made again, is not what was written.")
        return values

    def _bulk(self, writer: StoreWriter, bulk: Bulk, damaged: set[int]) -> Array:
        """Write all rows, the damaged first (what cannot be made again is told before gigabytes
        were copied); column `digest`, uint8 (N, 32)."""
        known = first_intact(self._copies, "digest")
        if self.own.column("digest") is None:
            self.redone.columns.append("digest")
        digests = np.empty(self.wanted.columns["digest"].shape, dtype=np.uint8)
        for shard in sorted(range(bulk.shards), key=lambda s: (s not in damaged, s)):
            span = bulk.rows_of(shard)
            skipped = self.own if known is None and shard in damaged else None
            rows = self._copied(shard, span, known, skipped)
            if rows is None:
                rows = self._made(shard, span, known)
            digests[span.start : span.stop] = row_digests(rows)
            writer.write_shard(shard, rows)
            self.tick(1)
        if not self._as_written(digests):  # and nothing tells in which rows
            for shard in (s for s in range(bulk.shards) if s not in self.redone.made):
                span = bulk.rows_of(shard)
                rows = self._made(shard, span, None)
                digests[span.start : span.stop] = row_digests(rows)
                writer.write_shard(shard, rows)
            self.redone.taken.clear()
        if not self._as_written(digests):
            raise self._others(f"The {bulk.name} that were made again are not those of before.")
        self.redone.made.sort()
        self.redone.taken.sort()
        return digests

    def _as_written(self, digests: Array) -> bool:
        return column_digest(digests) == self.wanted.columns["digest"].digest

    def _copied(
        self, shard: int, span: range, known: Array | None, skipped: Remains | None
    ) -> Array | None:
        """Rows from the first copy that has them, as far as can be told."""
        for copy in self._copies:
            rows = None if copy is skipped else copy.rows(span.start, span.stop)
            if rows is None:
                continue
            if known is None or np.array_equal(row_digests(rows), known[span.start : span.stop]):
                if copy is not self.own:
                    self.redone.taken.append(shard)
                return rows
        return None

    def _made(self, shard: int, span: range, known: Array | None) -> Array:
        rows = self.remake.rows(span.start, span.stop, self._samples)
        self._refuse_shape(rows, len(span))
        if known is not None:
            wrong = (row_digests(rows) != known[span.start : span.stop]).any(axis=1)
            if wrong.any():
                raise self._others(
                    f"{int(wrong.sum())} of the {len(span)} {self.wanted.bulk} of shard {shard} "
                    "that were made again are not those that were written."
                )
        self.redone.made.append(shard)
        return rows

    def _refuse_shape(self, rows: Array, count: int) -> None:
        column = self.wanted.columns[self.wanted.bulk]
        if rows.shape != (count, *column.shape[1:]) or rows.dtype.name != column.dtype:
            raise self._others(
                f"A row of {self.wanted.bulk} is {rows.dtype.name} {rows.shape[1:]} when it is "
                f"made again, it was {column.dtype} {column.shape[1:]}."
            )

    def _others(self, what: str) -> CacheMismatchError:
        return CacheMismatchError(
            f"{what} Nothing was changed. {self.remake.why_others} An equal cache, if there is "
            "one, can be named with --from."
        )

    def _provenance(self, made: str) -> None:
        """As it was, where all files are as they were; else with a word on the repair."""
        done, own = self.redone, _said(self.own)
        found = own if own is not None else _said(self.other)
        if own is None:
            done.files.append(PROVENANCE)
        if found is None:
            done.notes.append(
                f"{PROVENANCE} is lost: nothing tells any more when and with which versions the "
                "cache was made."
            )
        said = without_list(found or {})
        said["repaired"] = {
            "made": made,
            "versions": versions(),
            "shards": done.made,
            "shards_of_an_equal_cache": done.taken,
            "columns": done.columns,
        }
        write_provenance(self.folder, said)
        if own is not None and read_provenance(self.folder)["files"] == own.get("files"):
            done.same_bytes = True
            write_json(self.folder / PROVENANCE, own)


def _said(copy: Remains | None) -> dict[str, Any] | None:
    """All of its provenance.json; None: lost."""
    try:
        return read_provenance(copy.path) if copy is not None else None
    except CacheDamagedError:
        return None


def suspects(report: Report, wanted: Manifest) -> set[int]:
    """Shards of which verify says that something is wrong with them."""
    found: set[int] = set()
    for fault in report.faults:
        file = re.fullmatch(rf"data\.zarr/{wanted.bulk}/c/([0-9]{{1,9}})(?:/0)*", fault.where)
        if file:
            found.add(int(file[1]))
        elif fault.where == f"column {wanted.bulk}":
            found.update(fault.shards)
    return found
