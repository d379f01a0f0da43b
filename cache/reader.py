"""Read a finished cache, and believe nothing that was not checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cache.digest import column_digest, file_digest, row_digests
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

    def bulk(self, dtype: str | None = None) -> Array:
        """All crops or latents, (N, ...), every row checked; `dtype` converts on the way.

        Reads a shard at a time: memory is the result plus one shard.
        """
        manifest = self.manifest
        declared = manifest.columns[manifest.bulk]
        size = math.prod(declared.shape) * np.dtype(dtype or declared.dtype).itemsize
        refuse_more_than_free(size, f"All {manifest.bulk} of {self.path}")
        out = np.empty(declared.shape, dtype=dtype or declared.dtype)
        for start in range(0, manifest.rows, manifest.shard_rows):
            stop = min(start + manifest.shard_rows, manifest.rows)
            out[start:stop] = self.bulk_rows(start, stop)
        return out

    def bulk_rows(self, start: int, stop: int) -> Array:
        """Crops or latents start..stop-1 as stored, every row checked."""
        with damage_in(self.path):
            return self._bulk_rows(start, stop)

    def _bulk_rows(self, start: int, stop: int) -> Array:
        rows = self._store.read(self.manifest.bulk, start, stop)
        wrong = (row_digests(rows) != self._digests()[start:stop]).any(axis=1)
        if wrong.any():
            raise CacheDamagedError(
                f"{self.path}: {self.manifest.bulk} row {start + int(wrong.argmax())} "
                f"does not have its digest ({int(wrong.sum())} such rows in this shard)."
            )
        return rows

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
