"""Which files a finished cache is made of, and what their bytes were when it was made.

Digests of rows and columns say that the values are right.  A byte can also
change where it carries none (free space of an HDF5 file, spaces in zarr.json),
which says that the disk or the copy is bad: so provenance.json lists the digest
of every file but the manifest and itself, and has a digest of its own.  It is
outside of fingerprint and content digest, and older caches have no list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.digest import file_digest, text_digest
from cache.errors import CacheDamagedError
from cache.files import write_json
from cache.fingerprint import canonical_json
from cache.plain import below, read_plain
from cache.schema import (
    MANIFEST,
    MANIFEST_LIMIT,
    PROVENANCE,
    SAMPLES,
    Manifest,
    parse_json,
    side_rows_for,
)
from cache.source import Place

_BEFORE = {"made", "seconds", "platform", "processor", "versions", "devices"}
"""All that it could say then.  What it says is copied, so it must not be another file."""
_FILES, _DIGEST = "files", "digest"
_LIMIT = MANIFEST_LIMIT  # bytes of a provenance.json that has no more files than rows


def write_provenance(folder: Path, about: dict[str, Any]) -> None:
    """provenance.json: `about`, the digests of the files that lie in `folder`, its own digest."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    files = {n: file_digest(folder / n) for n in names if n not in (MANIFEST, PROVENANCE)}
    listed = {**without_list(about), _FILES: files}
    write_json(folder / PROVENANCE, {**listed, _DIGEST: _seal(listed)})


def without_list(provenance: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of it."""
    return {k: v for k, v in provenance.items() if k not in (_FILES, _DIGEST)}


def read_provenance(folder: Place) -> dict[str, Any]:
    """The whole of provenance.json.

    Raises:
        CacheDamagedError: missing, no JSON, not as it was written, or it does
            not have its own digest.
    """
    path = folder / PROVENANCE
    # A file is listed for every shard, a shard has rows, and a row a line that is no shorter.
    table = folder / SAMPLES
    found = read_as_written(path, _LIMIT + (table.stat().st_size if table.is_file() else 0))
    if not isinstance(found, dict):
        raise CacheDamagedError(f"{path} is no JSON object.")
    if _FILES not in found and _DIGEST not in found:  # made before files were listed
        if not found.keys() <= _BEFORE:
            raise CacheDamagedError(f"{path} is not the provenance of a cache.")
        return found
    listed = {k: v for k, v in found.items() if k != _DIGEST}
    if found.get(_DIGEST) != _seal(listed):
        raise CacheDamagedError(f"{path} does not have its digest: it was changed or damaged.")
    files = found.get(_FILES)
    if not isinstance(files, dict) or not all(isinstance(d, str) for d in files.values()):
        raise CacheDamagedError(f"{path} does not list the digests of files.")
    return found


def _seal(listed: dict[str, Any]) -> str:
    return text_digest(canonical_json(listed))


def read_as_written(path: Place, limit: int) -> Any:
    """JSON in exactly the bytes that `write_json` gives it.

    Raises:
        CacheDamagedError: missing, too large, no JSON, or with bytes that carry no value changed.
    """
    raw = read_plain(path, limit)
    try:
        value = parse_json(raw)
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        same = text.encode() == raw
    except ValueError as error:
        raise CacheDamagedError(f"{path} cannot be read: {error}") from None
    if not same:
        raise CacheDamagedError(f"{path} is not as it was written: bytes in it were changed.")
    return value


def expected_files(manifest: Manifest) -> set[str]:
    """All files of a cache, relative to its folder."""
    names = {MANIFEST, SAMPLES, PROVENANCE}
    if manifest.store == "hdf5":
        return names | {"data.h5"}
    names.add("data.zarr/zarr.json")
    for name, column in manifest.columns.items():
        bulk = name == manifest.bulk
        rows = manifest.shard_rows if bulk else side_rows_for(manifest.rows)
        shards = math.ceil(manifest.rows / rows)
        rest = "/0" * (len(column.shape) - 1)
        names.add(f"data.zarr/{name}/zarr.json")
        names |= {f"data.zarr/{name}/c/{shard}{rest}" for shard in range(shards)}
    return names


def found_files(folder: Place) -> tuple[set[str], set[str]]:
    """What lies in the folder: files, and what is neither file nor folder (and is never opened).

    A link to a file counts as a file (DVC may have linked it), a link to a
    folder is not followed.
    """
    if not isinstance(folder, Path):
        return set(folder.files()), set()
    files, strange = below(folder)
    return set(files), set(strange)


def wrong_files(
    folder: Place, listed: dict[str, str], there: set[str], tick: Callable[[int], None]
) -> list[str]:
    """Those of `there` whose bytes are not what the list says."""
    wrong = []
    for name in sorted(there):
        if name in listed and file_digest(folder / name) != listed[name]:
            wrong.append(name)
        tick(1)
    return wrong
