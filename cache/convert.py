"""The same cache in the other store: equal rows, equal digests, put in place by one rename.

    .NAME.convert-<random>/    next to NAME: what will be NAME, locked while it is being made
    .NAME.replaced-<random>/   with overwrite, the old NAME for the moment between two renames

The lock (flock on the folder) ends with its process, however that ends: a
folder that can be locked was left by a process that was killed, and goes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheDamagedError, CacheExistsError, CacheUnfinishedError, Refused
from cache.files import put_in_place, sync_tree, write_json
from cache.listing import read_provenance, without_list, write_provenance
from cache.provenance import versions
from cache.reader import Cache
from cache.schema import MANIFEST, SAMPLES, Manifest, read_manifest
from cache.store import Bulk, store_writer
from cache.verify import verify
from cache.writer import refuse_taken

Tick = Callable[[int], None]


def convert(
    source: Path, out: Path, store: str, *, overwrite: bool, made: str, tick: Tick
) -> Manifest | None:
    """Write `source` to `out`; None: it is there already.  `made`: the time, for provenance.
    `store`: one of STORES.

    `tick` counts shards, each twice: written, then read back and checked.

    Raises:
        CacheExistsError: `out` is taken, or lies in `source`.
        CacheDamagedError: `source` is not what was written, or what was
            written does not read back.
    """
    source, out = source.resolve(), out.resolve()
    if out == source or source in out.parents:
        raise CacheExistsError(f"{out} is (in) the cache that is to be converted: choose another.")
    with Cache(source) as cache:
        if _there(out, cache.manifest, store):
            _tidy(out)
            return None
        refuse_taken(out, cache.manifest.kind, overwrite=overwrite)
        said = without_list(read_provenance(source))
        said["converted"] = {"made": made, "from": cache.manifest.store, "versions": versions()}
        out.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(out) as folder:
            _refuse_full_disk(cache.manifest, folder)
            manifest = _write(cache, folder, store, said, tick)
            _check(folder, manifest, tick)
            sync_tree(folder)
            aside = _beside(out, "replaced") if overwrite else None
            try:
                put_in_place(folder, out, aside)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise CacheExistsError(f"{out} has been made meanwhile.") from None
    _tidy(out)
    return manifest


def _there(out: Path, wanted: Manifest, store: str) -> bool:
    """`out` is what would be made, as far as manifests tell."""
    try:
        found = read_manifest(out)
    except Refused:
        return False
    return found == wanted.model_copy(update={"store": store}).sealed()


def _beside(out: Path, word: str) -> Path:
    return out.with_name(f".{out.name}.{word}-{uuid.uuid4().hex[:12]}")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A locked folder next to `out`, gone at the end unless it was renamed."""
    _tidy_scratch(out)
    folder = _beside(out, "convert")
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not folder.exists():  # another run took it for left over before it was locked
            raise CacheUnfinishedError(f"Another run makes {out} too: run the command again.")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nothing, once it was put in place
        os.close(handle)


def _tidy_scratch(out: Path) -> None:
    """Delete what killed runs have left."""
    if not out.parent.is_dir():
        return
    for path in out.parent.iterdir():
        if path.name.startswith(f".{out.name}.convert-") and path.is_dir():
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except OSError:  # another run is at work in it
                continue
            finally:
                os.close(handle)


def _tidy(out: Path) -> None:
    """`out` is in place: what was set aside for it goes too."""
    _tidy_scratch(out)
    for path in out.parent.iterdir():
        if path.name.startswith(f".{out.name}.replaced-"):
            shutil.rmtree(path, ignore_errors=True)


def _refuse_full_disk(manifest: Manifest, folder: Path) -> None:
    """HDF5 does not survive a disk that fills up while a file is open."""
    column = manifest.columns[manifest.bulk]
    needed = int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"No room for {needed / 1e6:.0f} MB", str(folder))


def _write(
    cache: Cache, folder: Path, store: str, provenance: dict[str, Any], tick: Tick
) -> Manifest:
    old = cache.manifest
    column = old.columns[old.bulk]
    bulk = Bulk(old.bulk, column.dtype, column.shape, old.shard_rows)
    writer = store_writer(store, folder, bulk)
    writer.create()
    for shard in range(bulk.shards):
        span = bulk.rows_of(shard)
        writer.write_shard(shard, cache.bulk_rows(span.start, span.stop))
        tick(1)
    side = {name: cache.side(name) for name in old.columns if name != old.bulk}
    about: dict[str, Any] = {
        "fingerprint": old.fingerprint,
        "settings": old.settings,
        "classes": old.classes,
        "info": old.info.model_dump(mode="json", exclude={"calibration"}),
    }
    writer.finish(side, {"lgr_pipe": json.dumps(about)})
    shutil.copyfile(cache.path / SAMPLES, folder / SAMPLES)
    write_provenance(folder, provenance)
    manifest = old.model_copy(update={"store": store}).sealed()
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _check(folder: Path, manifest: Manifest, tick: Tick) -> None:
    """Raise unless the new cache reads back without a fault."""
    files = len([p for p in folder.rglob("*") if p.is_file()])
    seen = 0

    def shards_only(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > files:
            tick(count)

    report = verify(folder, shards_only)
    if report.faults or report.manifest != manifest:
        first = report.faults[0] if report.faults else None
        says = f"{first.where}: {first.what}" if first else "another manifest"
        raise CacheDamagedError(
            f"What was written does not read back without a fault ({says}), so it was thrown away. "
            "lgr-pipe cache verify tells whether the cache that was to be converted has it too."
        )
