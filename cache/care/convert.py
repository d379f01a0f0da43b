"""The same cache in the other store: equal rows, equal digests, put in place by one rename.

.NAME.convert-<random>/    next to NAME: what will be NAME (beside.py)
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache import beside
from cache.care.verify import verify
from cache.errors import CacheDamagedError, CacheExistsError, Refused
from cache.files import sync_tree, write_json
from cache.listing import read_provenance, without_list, write_provenance
from cache.provenance import versions
from cache.reader import Cache
from cache.schema import MANIFEST, SAMPLES, Manifest, read_manifest
from cache.source import Place
from cache.store import Bulk, store_writer
from cache.writer import refuse_taken

Tick = Callable[[int], None]


def convert(
    source: Place, out: Path, store: str, *, overwrite: bool, made: str, tick: Tick
) -> Manifest | None:
    """Write `source` to `out`; None: it is there already.  `made`: the time, for provenance.
    `store`: one of STORES.

    `tick` counts shards, each twice: written, then read back and checked.

    Raises:
        CacheExistsError: `out` is taken, or lies in `source`.
        CacheDamagedError: `source` is not what was written, or what was
            written does not read back.
    """
    out = out.resolve()
    source = source.resolve() if isinstance(source, Path) else source
    if source in (out, *out.parents):
        raise CacheExistsError(f"{out} is (in) the cache that is to be converted: choose another.")
    with Cache(source) as cache:
        if _there(out, cache.manifest, store):
            beside.tidy(out, "convert")
            beside.forget(out)
            return None
        refuse_taken(out, cache.manifest.kind, overwrite=overwrite)
        said = without_list(read_provenance(source))
        said["converted"] = {"made": made, "from": cache.manifest.store, "versions": versions()}
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside.scratch(out, "convert") as folder:
            _refuse_full_disk(cache.manifest, folder)
            manifest = _write(cache, folder, store, said, tick)
            _check(folder, manifest, tick)
            sync_tree(folder)
            beside.put(folder, out, overwrite=overwrite)
    beside.forget(out)
    return manifest


def _there(out: Path, wanted: Manifest, store: str) -> bool:
    """`out` is what would be made, as far as manifests tell."""
    try:
        found = read_manifest(out)
    except Refused:
        return False
    return found == wanted.model_copy(update={"store": store}).sealed()


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
        "info": old.info.model_dump(mode="json", exclude={"calibration", "crops"}),
    }
    writer.finish(side, {"lgr_pipe": json.dumps(about)})
    with (cache.path / SAMPLES).open("rb") as table, (folder / SAMPLES).open("wb") as copy:
        shutil.copyfileobj(table, copy)
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
