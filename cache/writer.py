"""Make a finished cache of finished parts, and put it in its place by one rename.

An interruption loses nothing, whenever it comes: the parts go only after the
rename, and a run that finds them all makes the cache again from them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.digest import DIGEST_BYTES, column_digest, file_digest, row_digests
from cache.errors import CacheDamagedError, CacheExistsError, CacheUnfinishedError, Refused
from cache.files import (
    put_in_place,
    refuse_full_disk,
    refuse_url,
    remove_tree,
    sync_tree,
    write_json,
    write_json_lines,
)
from cache.fingerprint import Settings, differences
from cache.listing import write_provenance
from cache.parts import PLAN, Parts
from cache.plain import below
from cache.printable import printable
from cache.schema import (
    CACHE_NAMES,
    MANIFEST,
    MOST_DIGESTS,
    SAMPLES,
    Column,
    Info,
    Kind,
    Manifest,
    attributes,
    column,
    content_digest,
    read_manifest,
    scratch_folders,
    shard_rows_for,
)
from cache.store import Array, Bulk, store_writer

_PUBLISHED = "published"
"""In a scratch folder: its cache is about to be put in place, or has been."""


@dataclass(frozen=True)
class Content:
    """What stands beside the bulk column."""

    side: dict[str, Array]
    """Columns by name, one value or a few per row."""
    samples: Iterable[dict[str, Any]]
    """The sample table, one dict per row."""
    classes: tuple[str, ...]
    info: Info
    provenance: dict[str, Any]


def publish(
    parts: Parts,
    content: Content,
    *,
    store: str,
    overwrite: bool,
    shard_rows: int | None = None,
) -> Manifest:
    """Make the cache of all parts and rename it to `parts.out`.

    Raises:
        CacheUnfinishedError: units are missing; the text names them.
        CacheDamagedError: a part is not what was written.
        CacheExistsError: `out` is taken and `overwrite` is not set.
    """
    done = None if overwrite else published(parts)
    if done is not None:  # by another process, while this one still worked
        _remove(parts.scratch)
        return done
    refuse_taken(parts.out, parts.plan.kind, overwrite=overwrite)
    refuse_missing(parts)
    before = _identity(parts.out)
    folder = parts.scratch / f"cache-{uuid.uuid4().hex[:8]}"  # another process may do the same
    aside = _beside(parts.scratch, "replaced") if overwrite else None
    try:
        _refuse_full_disk(parts)
        folder.mkdir()
        manifest = _assemble(parts, content, store, folder, shard_rows)
        sync_tree(folder)
        (parts.scratch / _PUBLISHED).touch()
        put_in_place(folder, parts.out, aside)
    except (OSError, CacheDamagedError):  # a part that is gone, perhaps
        done = published(parts)
        if done is not None and _identity(parts.out) != before:
            return done  # of another process, from the same parts
        if not parts.scratch.exists():
            raise parts.overtaken() from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing, unless it was not put in place
        # Where another process has finished and deleted the scratch folder meanwhile, writing the
        # store has made it again, with nothing of ours in it.
        with contextlib.suppress(OSError):
            if not (parts.scratch / PLAN).exists():
                (parts.scratch / _PUBLISHED).unlink(missing_ok=True)
            parts.scratch.rmdir()
    _remove(parts.scratch)
    clear_leftovers(parts.out, parts.plan.fingerprint)
    return manifest


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder it is, whatever it is called; None: there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _beside(scratch: Path, word: str) -> Path:
    """A new name that `scratch_folders` finds."""
    return scratch.with_name(f"{scratch.name}.{word}-{uuid.uuid4().hex[:8]}")


def _remove(scratch: Path) -> None:
    """Only the process whose rename succeeds deletes: two that walk one folder would meet."""
    gone = _beside(scratch, "done")
    with contextlib.suppress(OSError):
        scratch.rename(gone)
        remove_tree(gone)


def published(parts: Parts) -> Manifest | None:
    """What is in the place of `out`, if it is what these parts make."""
    try:
        found = read_manifest(parts.out)
    except Refused:
        return None
    return found if found.fingerprint == parts.plan.fingerprint else None


def _refuse_full_disk(parts: Parts) -> None:
    plan = parts.plan
    row_bytes = int(np.prod(plan.row_shape)) * np.dtype(plan.dtype).itemsize
    refuse_full_disk(parts.scratch, plan.rows * row_bytes)


def refuse_missing(parts: Parts) -> None:
    """Raise CacheUnfinishedError, naming the units, unless all are there."""
    missing = parts.missing()
    if missing:
        named = ", ".join(str(unit) for unit in missing[:12])
        more = f" and {len(missing) - 12} more" if len(missing) > 12 else ""
        raise CacheUnfinishedError(
            f"{parts.out} cannot be finished yet: {len(missing)} of {len(parts.plan.units)} units "
            f"of {parts.plan.kind} are missing ({named}{more}). Unit u is made by --shard i/n "
            "where u mod n = i; a run without --shard makes whatever is missing."
        )


def _assemble(
    parts: Parts, content: Content, store: str, folder: Path, shard_rows: int | None
) -> Manifest:
    """Store, sample table, provenance and manifest in `folder`."""
    plan = parts.plan
    count = sum(len(parts.record(unit).digests) for unit in plan.units)
    row_bytes = int(np.prod(plan.row_shape)) * np.dtype(plan.dtype).itemsize
    rows = shard_rows or shard_rows_for(row_bytes)
    bulk = Bulk(plan.kind, plan.dtype, (count, *plan.row_shape), rows)
    writer = store_writer(store, folder, bulk)
    writer.create()
    digests = np.empty((count, DIGEST_BYTES), dtype=np.uint8)
    of_shards: list[str] = []
    for shard, block in enumerate(_blocks(parts, bulk)):
        writer.write_shard(shard, block)
        span = bulk.rows_of(shard)
        digests[span.start : span.stop] = row_digests(block)
        of_shards.append(column_digest(block))
    side = {**content.side, "digest": digests}
    columns = {name: column(v.dtype.name, v.shape, column_digest(v)) for name, v in side.items()}
    columns[bulk.name] = column(bulk.dtype, bulk.shape, columns["digest"].digest)
    said = attributes(plan.fingerprint, plan.settings, content.classes, content.info)
    writer.finish(side, said)
    write_json_lines(folder / SAMPLES, content.samples)
    write_provenance(folder, content.provenance)
    samples_digest = file_digest(folder / SAMPLES)
    manifest = _manifest(parts, content, store, bulk, columns, samples_digest, of_shards)
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _blocks(parts: Parts, bulk: Bulk) -> Iterator[Array]:
    """The rows of all units, in order, cut into the store's shards."""
    pending: list[Array] = []
    held = 0
    for unit in parts.plan.units:
        pending.append(parts.read(unit))
        held += len(pending[-1])
        while held >= bulk.shard_rows:
            rows = np.concatenate(pending)
            yield rows[: bulk.shard_rows]
            pending = [rows[bulk.shard_rows :]]
            held -= bulk.shard_rows
    if held:
        yield np.concatenate(pending)


def _manifest(
    parts: Parts,
    content: Content,
    store: str,
    bulk: Bulk,
    columns: dict[str, Column],
    samples_digest: str,
    of_shards: list[str],
) -> Manifest:
    return Manifest.model_validate(
        {
            "kind": parts.plan.kind,
            "fingerprint": parts.plan.fingerprint,
            "settings": parts.plan.settings,
            "store": store,
            "rows": bulk.shape[0],
            "shard_rows": bulk.shard_rows,
            "bulk": bulk.name,
            "columns": dict(sorted(columns.items())),
            "content": content_digest(columns),
            "samples_digest": samples_digest,
            "shard_digests": of_shards if len(of_shards) <= MOST_DIGESTS else None,
            "classes": content.classes,
            "info": content.info,
        }
    ).sealed()


def refuse_taken(out: Path, kind: Kind, *, overwrite: bool) -> None:
    """Raise CacheExistsError if publishing to `out` would destroy something.

    An empty folder is free.  `overwrite` allows a cache of the same kind to be
    replaced (a damaged one too), and nothing else: no option deletes a folder
    of other things.
    """
    refuse_url(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise CacheExistsError(f"{out} exists already: choose another --out.")
    files, strange = below(out)
    ours = re.compile(CACHE_NAMES, re.DOTALL)
    foreign = [name for name in [*files, *strange] if not ours.fullmatch(name)]
    if foreign:
        raise CacheExistsError(
            f"{out} exists already and holds other things ({printable(foreign[0])}): choose "
            "another --out, or put them elsewhere."
        )
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
    clear_leftovers(out, found.fingerprint)
    return found


def clear_leftovers(out: Path, key: str) -> None:
    """What a run that was killed after its rename has left of the finished cache `out`.

    Work that still goes on is left alone.
    """
    for leftover in scratch_folders(out, key):
        if ".done-" in leftover.name or ".replaced-" in leftover.name:
            remove_tree(leftover)
        elif (leftover / _PUBLISHED).exists():
            _remove(leftover)
