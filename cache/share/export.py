"""A cache written for other programs, or as one file to send.

    npy          a folder of arrays            export_npy.py
    safetensors  one file of tensors           export_safetensors.py
    parquet      one file, a row a sample      export_parquet.py
    zip          the cache as it is            export_zip.py, back by unzip.py

Made beside OUT and renamed: OUT is wholly there or not there.
"""

from __future__ import annotations

import filecmp
from pathlib import Path

from cache import beside
from cache.care.verify import steps as verify_steps
from cache.errors import CacheExistsError, Refused
from cache.files import refuse_full_disk, sync, sync_tree, tree_bytes
from cache.listing import found_files
from cache.printable import printable
from cache.reader import Cache
from cache.share import export_npy, export_parquet, export_safetensors, export_zip
from cache.share.export_rows import Format, Tick, about

_FORMATS: dict[str, Format] = {
    "npy": export_npy.FORMAT,
    "safetensors": export_safetensors.FORMAT,
    "zip": export_zip.FORMAT,
    "parquet": export_parquet.FORMAT,
}
FORMATS = tuple(_FORMATS)


def steps(source: Path, to: str) -> int:
    """How many ticks `export` gives: shards, of a zip what is verified and the files."""
    if to == "zip":
        return verify_steps(source) + len(found_files(source)[0])
    with Cache(source) as cache:
        return cache.manifest.shards


def export(
    source: Path, out: Path, to: str, *, crops: bool, names: bool, overwrite: bool, tick: Tick
) -> bool:
    """Write the cache `source` to `out`; False: the same bytes are there already.

    Args:
        to: one of FORMATS.
        crops: pictures of faces may be written.
        names: sample ids and subjects as they are, not numbers for them.
        overwrite: replace an export of the same format.

    Raises:
        Refused: a crop cache without `crops`; zip without `names`; pyarrow missing.
        CacheExistsError: `out` is taken, or lies in `source`.
        CacheDamagedError: `source` is not what was written.
    """
    source, out = source.resolve(), out.resolve()
    if out == source or source in out.parents:
        raise CacheExistsError(f"{out} is (in) the cache that is to be exported: choose another.")
    form = _FORMATS[to]
    with Cache(source) as cache:
        if cache.manifest.kind == "crops" and not crops:
            raise Refused(
                f"{source} holds crops: pictures of people's faces, which are personal data. "
                "Nothing was exported; add --crops if those who get them may have them."
            )
        same = _refuse_taken(cache, out, to, form, names=names, overwrite=overwrite)
        with beside.scratch(out, "export") as scratch:
            rows = cache.manifest.columns[cache.manifest.bulk]
            refuse_full_disk(scratch, tree_bytes(source) if to == "zip" else rows.nbytes)
            made = scratch / out.name
            form.write(cache, made, names, tick)
            if same and _equal(made, out):
                beside.forget(out)
                return False
            if same and not overwrite:
                raise CacheExistsError(
                    f"{out} says that it is this export, but its bytes are others: it was changed, "
                    "damaged, or written by another version. Add --overwrite to replace it."
                )
            sync_tree(made) if form.folder else sync(made)
            beside.put(made, out, overwrite=overwrite)
    beside.forget(out)
    return True


def _refuse_taken(
    cache: Cache, out: Path, to: str, form: Format, *, names: bool, overwrite: bool
) -> bool:
    """True: `out` says that it is what would be made; False: nothing is there, or it may go."""
    if not out.exists() and not out.is_symlink():
        return False
    if out.is_dir() and form.folder and not any(out.iterdir()):
        return False
    claim = form.claim(out) if out.is_dir() == form.folder else None
    if claim is None:
        raise CacheExistsError(
            f"{printable(out)} exists already and is no {to} export of lgr-pipe: choose another."
        )
    if claim == about(cache.manifest, to, names=names):
        return True
    if not overwrite:
        raise CacheExistsError(
            f"{printable(out)} exists already and is another export: add --overwrite to replace "
            "it, or choose another."
        )
    return False


def _equal(made: Path, out: Path) -> bool:
    """Byte by byte."""
    if not made.is_dir():
        return filecmp.cmp(made, out, shallow=False)
    files = sorted(p.name for p in made.iterdir())
    return files == sorted(p.name for p in out.iterdir()) and not any(
        filecmp.cmpfiles(made, out, files, shallow=False)[1:]
    )
