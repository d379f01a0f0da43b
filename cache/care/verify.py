"""Is a cache what was written, all of it?  Every fault is found, not only the first.

    files    all there, none besides, each with the digest that was listed when it was made
    table    one line a row; label, split, subject and crop are those of the columns
    columns  dtype, shape and digest
    rows     readable, with their digests, finite, in the range that the manifest states; each
             shard with its digest

Reads a shard at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from blake3 import blake3

from cache.digest import DIGEST_BYTES, ColumnDigest, column_digest, file_digest, row_digests
from cache.errors import CacheDamagedError
from cache.listing import (
    expected_files,
    found_files,
    read_as_written,
    read_provenance,
    wrong_files,
)
from cache.printable import printable
from cache.schema import (
    MANIFEST,
    MANIFEST_LIMIT,
    PROVENANCE,
    SAMPLES,
    Manifest,
    chunk_rows_for,
    read_manifest,
    refuse_rows_without_lines,
)
from cache.source import Place
from cache.store import Array, StoreReader, store_reader
from cache.table import FIELDS, Rows, Table, misaligned, read_table

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str
    """A file, relative to the cache, or a column."""
    what: str
    rows: tuple[tuple[int, int], ...] = ()
    """First and last of each run of rows that it concerns."""
    shards: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recomputed:
    """Rows that were made again from what they were made of, and compared."""

    rows: tuple[int, ...]
    seed: int
    """By which they were chosen."""
    largest: float
    """Largest absolute difference of two values."""
    differing: tuple[int, ...]
    """Rows that are not what was made again; each belongs to a fault."""


@dataclass
class Report:
    """What was found in a cache."""

    path: Place
    manifest: Manifest | None = None
    """None: it cannot be read, or cannot be true."""
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""
    recomputed: Recomputed | None = None
    """None: that was not asked for, or there are faults."""

    def add(self, where: str, what: object) -> None:
        self.faults.append(Fault(printable(where), printable(what)))

    def add_rows(self, where: str, what: str, rows: Rows) -> None:
        """Nothing if there are none."""
        if len(rows) and self.manifest is not None:
            shards = np.unique(rows // self.manifest.shard_rows).tolist()
            self.faults.append(Fault(where, what, runs(rows), tuple(shards)))


def runs(rows: Rows) -> tuple[tuple[int, int], ...]:
    """
    >>> runs(np.array([3, 4, 5, 9]))
    ((3, 5), (9, 9))
    """
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return tuple((int(r[0]), int(r[-1])) for r in np.split(rows, cuts) if len(r))


def steps(path: Place) -> int:
    """How many ticks `verify` gives: one a file, one a shard.

    Raises:
        CacheMissingError, CacheUnfinishedError: there is nothing to verify.
    """
    try:
        shards = read_manifest(path).shards
    except CacheDamagedError:
        shards = 0
    return len(found_files(path)[0]) + shards


def verify(path: Place, tick: Tick) -> Report:
    """Read everything and compare it with everything that is stated of it.

    Raises:
        CacheMissingError, CacheUnfinishedError: there is nothing to verify.
    """
    report = Report(path)
    try:
        report.manifest = read_manifest(path)
        read_as_written(path / MANIFEST, MANIFEST_LIMIT)
    except CacheDamagedError as error:
        report.add(MANIFEST, error)
    if report.manifest is not None and (path / SAMPLES).is_file():
        try:
            refuse_rows_without_lines(report.manifest, path)
        except CacheDamagedError as error:
            report.add(SAMPLES, error)
            report.manifest = None  # so many shards need not even be listed
    strange = _files(report, tick)
    if report.manifest is None:
        report.notes.append("Without a manifest that holds, only digests of files were checked.")
        return report
    table = _table(report)
    if strange:
        report.notes.append("The arrays were not read: something in the folder is no file.")
    elif table is None:
        report.notes.append("The arrays were not read: the number of rows is not certain.")
    else:
        _arrays(report, report.manifest, table, tick)
    return report


def _files(report: Report, tick: Tick) -> bool:
    """All files are there, none besides, with their digests; True: something is no file at all."""
    there, strange = found_files(report.path)
    for name in sorted(strange):
        report.add(name, "is neither a file nor a folder; it is not opened.")
    expected = there
    if report.manifest is not None:
        expected = expected_files(report.manifest)
        for name in sorted(expected - there - strange):
            report.add(name, "is missing.")
        for name in sorted(there - expected):
            report.add(name, "does not belong to a cache.")
    try:
        listed = read_provenance(report.path).get("files")
    except CacheDamagedError as error:
        if PROVENANCE in there:  # a missing one has been told
            report.add(PROVENANCE, error)
        return bool(strange)
    if listed is None:
        report.notes.append(
            "It was made before files were listed with their digests: a byte that carries no value "
            "could have changed unseen."
        )
        return bool(strange)
    for name in wrong_files(report.path, listed, there, tick):
        report.add(name, "is not what was written: it does not have the digest that was listed.")
    for name in sorted((there & expected) - listed.keys() - {MANIFEST, PROVENANCE}):
        report.add(name, f"is not listed in {PROVENANCE}.")
    return bool(strange)


def _table(report: Report) -> Table | None:
    """The sample table; None where it cannot be read or has another number of rows."""
    manifest, path = report.manifest, report.path / SAMPLES
    if manifest is None or not path.is_file():
        return None
    if file_digest(path) != manifest.samples_digest:
        report.add(SAMPLES, "does not have the digest that the manifest states.")
    try:
        table = read_table(path, manifest)
    except CacheDamagedError as error:
        report.add(SAMPLES, error)
        return None
    if table.rows != manifest.rows:
        many = "more" if table.rows > manifest.rows else str(table.rows)
        report.add(SAMPLES, f"has {many} rows, the cache {manifest.rows}.")
        return None
    report.add_rows(SAMPLES, "the lines do not have the numbers of their rows", _rows(table))
    images = {k: n for k, n in manifest.info.images.items() if n}
    if manifest.kind == "crops" and images and images != dict(table.statuses):
        report.add(SAMPLES, "its statuses are not counted as the manifest counts them.")
    return table


def _rows(table: Table) -> Rows:
    return np.asarray(table.misplaced, dtype=np.int64)


def _arrays(report: Report, manifest: Manifest, table: Table, tick: Tick) -> None:
    try:
        store = store_reader(manifest.store, report.path)
    except CacheDamagedError as error:
        report.add(f"store {manifest.store}", error)
        return
    try:
        good = {name for name in manifest.columns if _as_declared(report, manifest, store, name)}
        digests = None
        for name in sorted(good - {manifest.bulk}):
            values = _side(report, manifest, store, table, name)
            digests = values if name == "digest" else digests
        if manifest.bulk in good:
            _bulk(report, manifest, store, digests, tick)
    finally:
        store.close()


def _as_declared(report: Report, manifest: Manifest, store: StoreReader, name: str) -> bool:
    column = manifest.columns[name]
    try:
        dtype, shape = store.describe(name)
    except CacheDamagedError as error:
        report.add(f"column {name}", error)
        return False
    if (dtype, shape) == (column.dtype, column.shape):
        return True
    report.add(
        f"column {name}",
        f"is {dtype} {shape} on disk, {column.dtype} {column.shape} in the manifest.",
    )
    return False


def _side(
    report: Report, manifest: Manifest, store: StoreReader, table: Table, name: str
) -> Array | None:
    """A side column, or None where it is not to be trusted."""
    try:
        values = store.read(name, 0, manifest.rows)
    except CacheDamagedError as error:
        report.add(f"column {name}", error)
        return None
    if name in FIELDS and FIELDS[name] not in table.stated:
        report.notes.append(
            f"{SAMPLES} states no {FIELDS[name]}: column {name} has no counterpart."
        )
    elif name in FIELDS:
        wrong = misaligned(table, name, values, manifest.kind)
        report.add_rows(f"column {name}", f"does not say what {SAMPLES} says", wrong)
    if column_digest(values) != manifest.columns[name].digest:
        report.add(f"column {name}", "does not have its digest.")
        return None
    return values


@dataclass
class _Wrong:
    """Rows of the bulk column, collected over the shards."""

    unreadable: list[Rows] = field(default_factory=list)
    digest: list[Rows] = field(default_factory=list)
    infinite: list[Rows] = field(default_factory=list)
    outside: list[Rows] = field(default_factory=list)
    shard: list[Rows] = field(default_factory=list)
    """All rows of shards without their digest, where nothing tells which of them are wrong."""

    def told(self) -> int:
        """How many are not readable or have not their digest."""
        return sum(map(len, self.unreadable + self.digest))


def _bulk(
    report: Report, manifest: Manifest, store: StoreReader, digests: Array | None, tick: Tick
) -> None:
    wrong, whole = _Wrong(), blake3()
    low, high = _bounds(manifest)
    for start in range(0, manifest.rows, manifest.shard_rows):
        stop = min(start + manifest.shard_rows, manifest.rows)
        shard, told = ColumnDigest(), wrong.told()
        for first, rows in _readable(manifest, store, start, stop):
            if isinstance(rows, int):
                wrong.unreadable.append(np.arange(first, first + rows))
                whole.update(bytes(rows * DIGEST_BYTES))
                continue
            shard.add(rows)
            found = row_digests(rows)
            whole.update(found.tobytes())
            if digests is not None:
                bad = (found != digests[first : first + len(rows)]).any(axis=1)
                wrong.digest.append(first + np.flatnonzero(bad))
            if rows.dtype.kind == "f":
                flat = rows.reshape(len(rows), -1)
                finite = np.isfinite(flat).all(axis=1)
                wrong.infinite.append(first + np.flatnonzero(~finite))
                outside = finite & ((flat.min(axis=1) < low) | (flat.max(axis=1) > high))
                wrong.outside.append(first + np.flatnonzero(outside))
        stated = manifest.shard_digests
        same = stated is None or stated[start // manifest.shard_rows] == shard.digest()
        if not same and wrong.told() == told:
            wrong.shard.append(np.arange(start, stop))
        tick(1)
    name = f"column {manifest.bulk}"
    report.add_rows(name, "cannot be read: the store's own checks fail", _all(wrong.unreadable))
    report.add_rows(name, "is not what was written: rows without their digest", _all(wrong.digest))
    report.add_rows(name, "does not have the digests of its shards", _all(wrong.shard))
    report.add_rows(name, "holds NaN or infinity", _all(wrong.infinite))
    report.add_rows(name, f"leaves the stated range {low:g} to {high:g}", _all(wrong.outside))
    if f"blake3:{whole.hexdigest()}" != manifest.columns[manifest.bulk].digest:
        report.add(name, "does not have its digest: the content digest is not that of these rows.")


def _all(rows: list[Rows]) -> Rows:
    return np.concatenate([np.empty(0, dtype=np.int64), *rows])


def _bounds(manifest: Manifest) -> tuple[Any, Any]:
    """Of all values, in the precision in which they are stored; without end where none is said."""
    info, dtype = manifest.info, np.dtype(manifest.columns[manifest.bulk].dtype)
    said = [r for r in (info.value_range, info.observed_range) if r is not None]
    if dtype.kind != "f" or not said:
        return -np.inf, np.inf
    low, high = max(r[0] for r in said), min(r[1] for r in said)
    with np.errstate(over="ignore"):
        return dtype.type(low), dtype.type(high)


def _readable(
    manifest: Manifest, store: StoreReader, start: int, stop: int
) -> Iterator[tuple[int, Array | int]]:
    """(first row, rows) of a shard, in pieces where not all of it can be read: there, how many."""
    try:
        yield start, store.read(manifest.bulk, start, stop)
        return
    except CacheDamagedError:
        pass
    shape = manifest.columns[manifest.bulk].shape
    row_bytes = int(np.prod(shape[1:])) * np.dtype(manifest.columns[manifest.bulk].dtype).itemsize
    step = chunk_rows_for(manifest.shard_rows, row_bytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        try:
            rows: Array | int = store.read(manifest.bulk, first, last)
        except CacheDamagedError:
            rows = last - first
        yield first, rows
