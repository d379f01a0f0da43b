"""The same cache in the other store: equal rows, equal digests, put in place by one rename.

It is made in .NAME.convert-<random>/ next to NAME (beside.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache import beside
from cache.care.read_back import read_back
from cache.errors import CacheDamagedError, CacheExistsError, Refused
from cache.files import refuse_full_disk, sync_tree, write_json
from cache.listing import read_provenance, without_list, write_provenance
from cache.provenance import versions
from cache.reader import Cache
from cache.schema import MANIFEST, SAMPLES, Manifest, attributes, read_manifest
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
            refuse_full_disk(folder, cache.manifest.columns[cache.manifest.bulk].nbytes)
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
    said = attributes(old.fingerprint, old.settings, old.classes, old.info)
    writer.finish(side, said)
    with (cache.path / SAMPLES).open("rb") as table, (folder / SAMPLES).open("wb") as copy:
        shutil.copyfileobj(table, copy)
    write_provenance(folder, provenance)
    manifest = old.model_copy(update={"store": store}).sealed()
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _check(folder: Path, manifest: Manifest, tick: Tick) -> None:
    """Raise unless the new cache reads back without a fault."""
    says = read_back(folder, manifest, tick)
    if says:
        raise CacheDamagedError(
            f"What was written does not read back without a fault ({says}), so it was thrown away. "
            "lgr-pipe cache verify tells whether the cache that was to be converted has it too."
        )
