"""One zip file to send: the whole cache as it is.

Stored, not compressed a second time; fixed dates, modes and order, and a folder
named by kind and fingerprint: the same cache gives the same bytes wherever it
lies.  lgr-pipe cache import is the way back, any unzip another.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from blake3 import blake3

from cache.care.verify import verify
from cache.errors import CacheDamagedError, Refused
from cache.fingerprint import short
from cache.listing import found_files, read_provenance
from cache.reader import Cache
from cache.schema import Manifest, parse_json
from cache.share.export_rows import Format, Tick, about
from cache.share.zip_listing import MOST, listed

_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip knows no earlier time
_MODE = 0o100644


def write(cache: Cache, out: Path, names: bool, tick: Tick) -> None:
    """Verify the cache, then make the file `out`; ticks: as `verify`, and one a file.

    Raises:
        CacheDamagedError: a fault; what is damaged is not sent.
        Refused: without names, which the digests do not allow.
    """
    if not names:
        raise Refused(
            "--to zip sends the cache as it is, and its digests hold only with the names in it: "
            "use --to npy, safetensors or parquet with --no-names."
        )
    source = Path(str(cache.path))  # a folder: zip sends files
    report = verify(source, tick)
    if report.faults:
        first = report.faults[0]
        raise CacheDamagedError(f"{source} is not whole: {first.where} {first.what}")
    folder = f"{cache.manifest.kind}-{short(cache.manifest.fingerprint)}"
    digests = read_provenance(source).get("files", {})
    files = sorted(found_files(source)[0])
    if len(files) > MOST:
        raise Refused(
            f"{source} has {len(files)} files, more than {MOST}, which lgr-pipe cache import reads "
            "at most: lgr-pipe cache convert --store hdf5 makes one with few."
        )
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name in files:
            found = _add(file, f"{folder}/{name}", source / name)
            if digests.get(name, found) != found:
                raise CacheDamagedError(f"{source / name} was changed while it was read.")
            tick(1)


def _add(file: zipfile.ZipFile, name: str, source: Path) -> str:
    """Copy one file; the digest of what was copied."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = 3, _MODE << 16  # Unix, whatever this is
    entry.file_size = source.stat().st_size  # decides whether it needs 64 bits
    hasher = blake3()
    with source.open("rb") as handle, file.open(entry, "w") as target:
        while block := handle.read(1 << 20):
            hasher.update(block)
            target.write(block)
    return f"blake3:{hasher.hexdigest()}"


def claim(out: Path) -> dict[str, Any] | None:
    """What the manifest in it says; None: it is no zip file with a cache."""
    try:
        with listed(out) as listing:
            said = Manifest.model_validate(parse_json(listing.manifest()))
    except (Refused, ValueError):
        return None
    return about(said, "zip", names=True)


FORMAT = Format(write, claim)
