"""What can still be read of a damaged cache, and what one part of it says of another."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.digest import column_digest, file_digest
from cache.errors import CacheDamagedError
from cache.listing import found_files
from cache.printable import printable
from cache.schema import SAMPLES, Manifest
from cache.store import Array, StoreReader, store_reader
from cache.table import FIELDS, Table


class Remains:
    """A cache of which perhaps not everything can be read.

    Nothing is raised for what cannot: then there is None.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """`manifest`: what the cache should be.

        Raises:
            CacheDamagedError: something in the folder is no file: reading it could take for ever.
        """
        refuse_strange(path)
        self.path, self._manifest = path, manifest
        self._store: StoreReader | None = None
        self._sound: dict[str, bool] = {}
        with contextlib.suppress(CacheDamagedError):
            self._store = store_reader(manifest.store, path)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def column(self, name: str) -> Array | None:
        """A whole side column that has its digest."""
        values = self._read(name, 0, self._manifest.rows)
        if values is None or column_digest(values) != self._manifest.columns[name].digest:
            return None
        return values

    def rows(self, start: int, stop: int) -> Array | None:
        """Crops or latents as the store gives them: whether they have their digests is to be
        seen."""
        return self._read(self._manifest.bulk, start, stop)

    def table(self) -> Path | None:
        """The file of the sample table, if it has its digest."""
        path = self.path / SAMPLES
        whole = path.is_file() and file_digest(path) == self._manifest.samples_digest
        return path if whole else None

    def _read(self, name: str, start: int, stop: int) -> Array | None:
        if self._store is None:
            return None
        try:
            if name not in self._sound:
                declared = self._manifest.columns[name]
                self._sound[name] = self._store.describe(name) == (declared.dtype, declared.shape)
            return self._store.read(name, start, stop) if self._sound[name] else None
        except CacheDamagedError:
            return None


def refuse_strange(path: Path) -> None:
    """Raise CacheDamagedError where there are pipes, sockets, or links that lead nowhere."""
    strange = found_files(path)[1]
    if strange:
        raise CacheDamagedError(
            f"{printable(path / min(strange))} is neither a file nor a folder, so nothing beside "
            "it is opened. Delete it and run the command again."
        )


def first_intact(copies: Sequence[Remains], name: str) -> Array | None:
    """A side column of the first copy that has it whole."""
    for copy in copies:
        values = copy.column(name)
        if values is not None:
            return values
    return None


def from_table(table: Table, name: str, dtype: str) -> Array | None:
    """A side column as the sample table says it, which need not be as it was: None of those that
    it does not say.

    A subject is the rank of its name among all of the data set; the table may have only some.
    """
    if name not in FIELDS or FIELDS[name] not in table.stated:
        return None
    if name == "subject":
        return _ranks(table).astype(dtype)
    said = {"label": table.label, "split": table.split, "row": table.crop}[name]
    return np.asarray(said, dtype=np.int64).astype(dtype)


def _ranks(table: Table) -> Array:
    """int64 (N,): -1 where there is no name."""
    rank = np.full(len(table.subjects), -1, dtype=np.int64)
    for number, name in enumerate(sorted(table.subjects.keys() - {""})):
        rank[table.subjects[name]] = number
    return rank[np.asarray(table.subject, dtype=np.int64)]
