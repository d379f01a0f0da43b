"""Make a cache: shard by shard in a scratch folder, published by one rename.

    .NAME.work-<fingerprint>/     next to NAME, same file system
        plan.json                 what is being made
        records/00000.json        one per finished shard, written after its data
        parts/                    HDF5's shards until they are assembled
        cache/                    what will be NAME; its manifest is written last
    -> NAME/

An interruption loses at most the shard in work, whenever it comes: records go
only after the rename.  The same command goes on where it stopped: a shard
counts as done when its record is there and its data has the digests that the
record says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cache.digest import column_digest, file_digest, hex_digests
from cache.errors import CacheDamagedError, CacheExistsError
from cache.files import put_in_place, sync_tree, write_json, write_json_lines
from cache.fingerprint import Settings, canonical_json, differences, fingerprint, short
from cache.schema import (
    MANIFEST,
    PROVENANCE,
    SAMPLES,
    SCHEMA,
    Info,
    Kind,
    Manifest,
    column,
    content_digest,
    read_manifest,
    scratch_folder,
)
from cache.store import Array, Bulk, store_writer


class CacheWriter:
    """Work in progress on the cache `out`."""

    def __init__(
        self, out: Path, kind: Kind, settings: Settings, store: str, bulk: Bulk, *, overwrite: bool
    ) -> None:
        """Start, or go on where an interrupted run stopped.

        Raises:
            CacheExistsError: `out` is taken and `overwrite` is not set.
        """
        self.out, self._kind, self._settings = out.resolve(), kind, settings
        self._store_name, self.bulk, self._overwrite = store, bulk, overwrite
        refuse_taken(out, kind, overwrite=overwrite)
        self.fingerprint = fingerprint(settings)
        self.scratch = scratch_folder(out, short(self.fingerprint))
        self._records, self._folder = self.scratch / "records", self.scratch / "cache"
        self._store = store_writer(store, self._folder, self.scratch, bulk)
        self._prepare()

    def _prepare(self) -> None:
        plan = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "store": self._store_name,
            "dtype": self.bulk.dtype,
            "shape": list(self.bulk.shape),
            "shard_rows": self.bulk.shard_rows,
        }
        path = self.scratch / "plan.json"
        try:
            same = canonical_json(json.loads(path.read_text())) == canonical_json(plan)
        except (OSError, ValueError):
            same = False
        if not same:  # nothing yet, or the remains of another version: start clean
            if self.scratch.exists():
                shutil.rmtree(self.scratch)
            self._records.mkdir(parents=True)
            self._folder.mkdir()
            self._store.create()
            write_json(path, plan)

    def todo(self) -> list[int]:
        """Shards still to be made, in order."""
        return [shard for shard in range(self.bulk.shards) if not self._done(shard)]

    def _done(self, shard: int) -> bool:
        try:
            expected: list[str] = self._record(shard)["digests"]
            rows = self._store.read_shard(shard)
            return hex_digests(rows) == expected
        except Exception:  # whatever is wrong with a shard, the cure is to make it again
            return False

    def _record(self, shard: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self._records / f"{shard:05d}.json").read_text())
        return record

    def write(self, shard: int, rows: Array, note: dict[str, Any]) -> None:
        """Put a whole shard on the disk, then its record.

        `rows` has the bulk column's dtype and shape; `note` is JSON that the
        caller wants back from `notes()` when all shards are done.
        """
        expected = (len(self.bulk.rows_of(shard)), *self.bulk.shape[1:])
        if rows.shape != expected or rows.dtype != np.dtype(self.bulk.dtype):
            raise ValueError(
                f"shard {shard} must be {self.bulk.dtype} {expected}, got {rows.dtype} {rows.shape}"
            )
        try:
            self._store.write_shard(shard, rows)
            record = {"digests": hex_digests(rows), "note": note}
            write_json(self._records / f"{shard:05d}.json", record)
        except FileNotFoundError:
            raise self._overtaken() from None

    def _overtaken(self) -> CacheExistsError:
        return CacheExistsError(
            f"{self.scratch} vanished: another run is making {self.out} too, or has finished it. "
            "Run the command again to see."
        )

    def notes(self) -> list[dict[str, Any]]:
        """The notes of all shards, in order."""
        return [self._record(shard)["note"] for shard in range(self.bulk.shards)]

    def discard(self) -> None:
        """Throw the work in progress away."""
        shutil.rmtree(self.scratch)

    def publish(
        self,
        side: dict[str, Array],
        samples: Iterable[dict[str, Any]],
        classes: tuple[str, ...],
        info: Info,
        provenance: dict[str, Any],
    ) -> Manifest:
        """Add the side columns and the manifest, then rename the scratch folder to `out`."""
        records = [self._record(shard) for shard in range(self.bulk.shards)]
        digests = b"".join(bytes.fromhex(d) for record in records for d in record["digests"])
        side = {**side, "digest": np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)}
        columns = {
            name: column(v.dtype.name, v.shape, column_digest(v)) for name, v in side.items()
        }
        columns[self.bulk.name] = column(self.bulk.dtype, self.bulk.shape, columns["digest"].digest)
        about = {"fingerprint": self.fingerprint, "settings": self._settings, "classes": classes}
        self._store.finish(side, {"lgr_pipe": json.dumps(about)})
        write_json_lines(self._folder / SAMPLES, samples)
        write_json(self._folder / PROVENANCE, provenance)
        manifest = Manifest.model_validate(
            {
                "kind": self._kind,
                "fingerprint": self.fingerprint,
                "settings": self._settings,
                "store": self._store_name,
                "rows": self.bulk.shape[0],
                "shard_rows": self.bulk.shard_rows,
                "bulk": self.bulk.name,
                "columns": dict(sorted(columns.items())),
                "content": content_digest(columns),
                "samples_digest": file_digest(self._folder / SAMPLES),
                "classes": classes,
                "info": info,
            }
        ).sealed()
        self._release(manifest)
        return manifest

    def _release(self, manifest: Manifest) -> None:
        """The manifest ends the work; the rename publishes it; only then the scratch goes.

        What is replaced is kept in the scratch folder until the new cache is in its place.
        """
        write_json(self._folder / MANIFEST, manifest.model_dump(mode="json"))
        sync_tree(self._folder)
        refuse_taken(self.out, self._kind, overwrite=self._overwrite)
        try:
            put_in_place(self._folder, self.out, self.scratch / "replaced")
        except FileNotFoundError:
            raise self._overtaken() from None
        shutil.rmtree(self.scratch)


def refuse_taken(out: Path, kind: Kind, *, overwrite: bool) -> None:
    """Raise CacheExistsError if publishing to `out` would destroy something.

    An empty folder is free.  `overwrite` allows a cache of the same kind to be
    replaced (a damaged one too), and nothing else: no option deletes a folder
    of other things.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise CacheExistsError(f"{out} exists already: choose another --out.")
    try:
        found: str = read_manifest(out).kind
    except CacheDamagedError:
        found = kind
    if found != kind:
        raise CacheExistsError(
            f"{out} exists already and is a cache of {found}: choose another --out."
        )
    if not overwrite:
        raise CacheExistsError(
            f"{out} exists already: add --overwrite to replace it, or choose another --out."
        )


def existing_match(
    out: Path, kind: Kind, settings: Settings, store: str, *, overwrite: bool
) -> Manifest | None:
    """The manifest of `out` if it is finished and exactly what is asked for.

    None if it is to be made: nothing is there yet, or it is to be overwritten.

    Raises:
        CacheExistsError: `out` is taken by something else; the text names the
            fields that differ.
        CacheDamagedError: `out` has a manifest that cannot be read.
    """
    if overwrite or not (out / MANIFEST).is_file():
        refuse_taken(out, kind, overwrite=overwrite)
        return None
    found = read_manifest(out)
    lines = differences({**settings, "store": store}, {**found.settings, "store": found.store})
    if lines:
        shown = "\n  ".join(lines)
        raise CacheExistsError(
            f"{out} exists already and is another cache. What differs:\n  {shown}\n"
            "Add --overwrite to replace it, or choose another --out."
        )
    leftover = scratch_folder(out, short(found.fingerprint))
    shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed after its rename
    return found
