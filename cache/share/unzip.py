"""A cache sent as one zip file, made a cache again: unpacked, verified, put in place by a rename.

The file is a stranger's.  No name in it is ever used as a path: which files a
cache has follows from its manifest, those are looked up in the zip, and
anything besides is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cache import beside
from cache.care.verify import steps, verify
from cache.errors import CacheDamagedError, Refused
from cache.files import refuse_full_disk, sync_tree
from cache.listing import expected_files
from cache.printable import printable
from cache.schema import MANIFEST, Manifest, read_manifest
from cache.share.zip_listing import Listing, listed
from cache.writer import refuse_taken

Tick = Callable[[int], None]
Bar = Callable[[str, int, str], Tick]
"""(title, how many, of what) -> tick"""


def unzip(path: Path, out: Path, *, overwrite: bool, bar: Bar) -> tuple[Manifest, bool]:
    """Make the cache in the zip file `path` at `out`; False: it is there already.

    Raises:
        CacheMissingError: there is no such file.
        CacheDamagedError: it is no zip with exactly one whole cache.
        CacheExistsError: `out` is taken by something else.
    """
    out = out.resolve()
    with listed(path) as listing:
        refuse_full_disk(next(p for p in out.parents if p.is_dir()), listing.size)
        with beside.scratch(out, "import") as scratch:
            folder = scratch / out.name
            manifest = _unpack(listing, folder, bar)
            if _there(out, manifest):
                beside.forget(out)
                return manifest, False
            refuse_taken(out, manifest.kind, overwrite=overwrite)
            report = verify(folder, bar("verify", steps(folder), "files and shards"))
            if report.faults:
                first = report.faults[0]
                raise CacheDamagedError(
                    f"The cache in {printable(path)} is not whole: {first.where} {first.what} "
                    f"({len(report.faults)} faults in all.) Nothing was made."
                )
            sync_tree(folder)
            beside.put(folder, out, overwrite=overwrite)
    beside.forget(out)
    return manifest, True


def _there(out: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(out) == manifest
    except Refused:
        return False


def _unpack(listing: Listing, folder: Path, bar: Bar) -> Manifest:
    """Write the files of a cache, and refuse everything else that is in the zip."""
    folder.mkdir()
    (folder / MANIFEST).write_bytes(listing.manifest())
    try:
        manifest = read_manifest(folder)
    except CacheDamagedError as error:
        text = str(error).replace(str(folder), printable(listing.path))
        raise CacheDamagedError(text) from None
    names = _names(listing, manifest)
    tick = bar("unpack", len(names), "files")
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with listing.open(name) as source, target.open("wb") as handle:
            shutil.copyfileobj(source, handle, 1 << 20)
        tick(1)
    return manifest


def _names(listing: Listing, manifest: Manifest) -> list[str]:
    """Those of the cache, sorted: made from the manifest, never from the zip.

    Raises:
        CacheDamagedError: one is missing or does not belong there.
    """
    # Counted first: a manifest may state any number of rows.
    many = manifest.store == "zarr" and manifest.shards > len(listing.entries)
    expected = set() if many else expected_files(manifest)
    for name in sorted(listing.entries.keys() - expected) if expected else ():
        raise CacheDamagedError(
            f"{printable(listing.path)}: {printable(name[:200])} does not belong to a cache; "
            "nothing was unpacked."
        )
    gone = min(expected - listing.entries.keys(), default="")
    missing = "most of its shards are" if many else f"{gone} is" if gone else ""
    if missing:
        raise CacheDamagedError(
            f"{printable(listing.path)} is not whole: {missing} missing; nothing was unpacked."
        )
    return sorted(expected)
