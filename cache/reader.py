"""Read a finished cache, and believe nothing that was not checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from cache.digest import ColumnDigest, column_digest, file_digest, row_digests
from cache.errors import CacheDamagedError, CacheMismatchError, damage_in
from cache.fingerprint import Settings, differences, fingerprint
from cache.memory import refuse_more_than_free
from cache.schema import (
    SAMPLES,
    SPLITS,
    Kind,
    Manifest,
    iter_lines,
    read_manifest,
    refuse_rows_without_lines,
)
from cache.source import Place
from cache.store import Array, store_reader
from cache.threads import in_turn, side_by_side

_AT_ONCE = 1 << 22
"""Bytes that are read and checked together."""
_AHEAD = 4
"""So often as much is read before it is compared with its digests."""


class Cache:
    """A finished cache, opened read-only.  Use as a context manager."""

    def __init__(self, path: Place) -> None:
        """Raises CacheMissingError, CacheUnfinishedError or CacheDamagedError."""
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        with damage_in(path):
            refuse_rows_without_lines(self.manifest, path)
            self._store = store_reader(self.manifest.store, path)
            self._refuse_other_columns()

    def _refuse_other_columns(self) -> None:
        for name, column in self.manifest.columns.items():
            found = self._store.describe(name)
            if found != (column.dtype, column.shape):
                raise CacheDamagedError(
                    f"{self.path}: column {name} is {found[0]} {found[1]} on disk, "
                    f"{column.dtype} {column.shape} in the manifest."
                )

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def expect(self, kind: Kind, settings: Settings | None = None) -> None:
        """Raise CacheMismatchError unless this is the cache that was asked for."""
        if self.manifest.kind != kind:
            other = "a crop cache" if self.manifest.kind == "crops" else "a latent cache"
            raise CacheMismatchError(f"{self.path} is {other}, a cache of {kind} is needed.")
        if settings is not None and fingerprint(settings) != self.manifest.fingerprint:
            lines = "\n  ".join(differences(settings, self.manifest.settings))
            raise CacheMismatchError(
                f"{self.path} is not the cache that these settings ask for:\n  {lines}"
            )

    def side(self, column: str) -> Array:
        """A whole side column, checked against the manifest."""
        with damage_in(self.path):
            return self._side(column)

    def _side(self, column: str) -> Array:
        declared = self.manifest.columns.get(column)
        if declared is None:
            raise CacheDamagedError(f"{self.path} has no column {column}.")
        values = self._store.read(column, 0, self.manifest.rows)
        if column_digest(values) != declared.digest:
            raise CacheDamagedError(f"{self.path}: column {column} does not have its digest.")
        limit = {"label": len(self.manifest.classes), "split": len(SPLITS)}.get(column)
        if limit is not None and not 0 <= values.min() <= values.max() < limit:
            raise CacheDamagedError(f"{self.path}: column {column} names what is not listed.")
        return values

    @property
    def chunk_rows(self) -> int:
        """Rows that are checked and unpacked together.  From a multiple of it to another,
        `bulk_rows` reads nothing else."""
        return self._store.chunk_rows(self.manifest.bulk)

    def bulk(self, dtype: str | None = None) -> Array:
        """All crops or latents, (N, ...), every byte checked; `dtype` converts on the way.

        Chunks, about 1 MB, are read straight into the result: memory is the result and a few
        chunks.
        """
        manifest = self.manifest
        declared = manifest.columns[manifest.bulk]
        size = math.prod(declared.shape) * np.dtype(dtype or declared.dtype).itemsize
        refuse_more_than_free(size, f"All {manifest.bulk} of {self.path}")
        out = np.empty(declared.shape, dtype=dtype or declared.dtype)
        with damage_in(self.path):
            self._fill(out, 0)
        return out

    def bulk_rows(self, start: int, stop: int) -> Array:
        """Crops or latents start..stop-1 as stored, every byte checked.

        Several threads may call it at once.
        """
        declared = self.manifest.columns[self.manifest.bulk]
        if not 0 <= start <= stop <= self.manifest.rows:
            raise IndexError(f"rows {start} to {stop - 1} of {self.manifest.rows}")
        out = np.empty((stop - start, *declared.shape[1:]), dtype=declared.dtype)
        with damage_in(self.path):
            self._fill(out, start)
        return out

    def _fill(self, out: Array, start: int) -> None:
        """Rows from `start` on into all of `out`, converted where it is of another dtype: whole
        shards side by side, each compared with its digest; other rows with their own."""
        listed, size = self.manifest.shard_digests, self.manifest.shard_rows
        if listed is None or self.chunk_rows > size:  # a stranger's: chunks would be read again
            self._fill_by_rows(out, start)
            return
        stop = start + len(out)

        def fill(span: tuple[int, int]) -> None:
            first, last = span
            room = out[first - start : last - start]
            whole = first % size == 0 and last == min(first + size, self.manifest.rows)
            if whole and first < last:
                self._fill_shard(room, first, listed[first // size])
            else:
                self._fill_by_rows(room, first)

        borders = range(start - start % size + size, stop, size)
        side_by_side(fill, list(pairwise([start, *borders, stop])))

    def _fill_shard(self, out: Array, start: int, digest: str) -> None:
        """A shard into all of `out`, whose digest is `digest`.  Reading and hashing megabytes at
        a time, threads seldom wait for the interpreter."""
        found = ColumnDigest()
        step = self._step(out)
        for first in range(0, len(out), step):
            room = out[first : first + step]
            rows = self._read(start + first, room)
            found.add(rows)
            if rows.dtype != out.dtype:
                room[:] = rows
        if found.digest() != digest:
            self._fill_by_rows(out, start)  # says in which row, and perhaps why
            raise CacheDamagedError(
                f"{self.path}: {self.manifest.bulk} rows {start} to {start + len(out) - 1} do not "
                "have the digest of their shard, though each row has its own."
            )

    def _step(self, out: Array) -> int:
        """Rows of whole chunks, at least one, that are read and checked together."""
        rows = _AT_ONCE * len(out) // max(1, out.nbytes)
        return max(1, rows // self.chunk_rows) * self.chunk_rows

    def _fill_by_rows(self, out: Array, start: int) -> None:
        """Rows from `start` on into all of `out`.

        A thread reads ahead while this one compares digests: reading lets others run, and
        hashing, a call a row, would only wait for its like in another thread.
        """
        digests = self._digests()
        step = self._step(out)
        cuts = [start, *range(start - start % step + step, start + len(out), step)]

        def read(first: int) -> tuple[int, Array]:
            stop = min(first - first % step + step, start + len(out))
            return first, self._read(first, out[first - start : stop - start])

        for first, rows in in_turn(read, cuts, _AHEAD):
            self._refuse_others(first, rows, digests[first : first + len(rows)])
            if rows.dtype != out.dtype:
                out[first - start : first - start + len(rows)] = rows

    def _read(self, start: int, room: Array) -> Array:
        """As many rows as there is room for; in it, where they need not be converted."""
        bulk = self.manifest.bulk
        same = room.dtype == np.dtype(self.manifest.columns[bulk].dtype)
        return self._store.read(bulk, start, start + len(room), room if same else None, sums=False)

    def _refuse_others(self, start: int, rows: Array, digests: Array) -> None:
        wrong = (row_digests(rows) != digests).any(axis=1)
        if wrong.any():
            self._store.read(self.manifest.bulk, start, start + len(rows))  # may say it better
            raise CacheDamagedError(
                f"{self.path}: {self.manifest.bulk} row {start + int(wrong.argmax())} does not "
                f"have its digest ({int(wrong.sum())} such rows among the {len(rows)} that were "
                "read with it)."
            )

    def _digests(self) -> Array:
        if not hasattr(self, "_digest_column"):
            self._digest_column = self.side("digest")
        return self._digest_column

    def lines(self) -> Iterator[dict[str, Any]]:
        """The rows of the sample table, one at a time, checked against the manifest: the digest
        before the first, the number after the last.

        Raises:
            CacheDamagedError: either is another, or a line cannot be read.
        """
        with damage_in(self.path):
            yield from self._lines()

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.path / SAMPLES
        if not path.is_file() or file_digest(path) != self.manifest.samples_digest:
            raise CacheDamagedError(f"{path} is missing or does not have its digest.")
        count = 0
        for count, row in enumerate(iter_lines(path), 1):  # noqa: B007 - counted
            yield row
        if count != self.manifest.rows:
            raise CacheDamagedError(f"{path} has {count} rows, the cache has {self.manifest.rows}.")

    def samples(self) -> list[dict[str, Any]]:
        """The whole sample table: 1.4 GB for a million rows; `lines` takes none."""
        return list(self.lines())

    def split_rows(self, split: str) -> Array:
        """Positions of the rows of one split, int64."""
        return np.flatnonzero(self.side("split") == SPLITS.index(split))
