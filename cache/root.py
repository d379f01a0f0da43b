"""A folder of caches that many projects share; where each lies follows from its fingerprint.

    ROOT/crops/<data set>-<12 digits>
    ROOT/latents/<data set>/<backbone>-<12 digits>

Whoever makes a cache here makes it in a scratch folder next to its place
(parts.py), so that two projects that make the same one share the work.

What comes from elsewhere, or goes elsewhere, is a copy whose rows are all
checked (care/convert.py), never a link: DVC moves, links and changes the mode of
its outputs, and a cache that others read must not change with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.care.convert import convert
from cache.errors import CacheDamagedError, CacheExistsError, Refused
from cache.fingerprint import short
from cache.listing import expected_files, found_files
from cache.parts import Plan
from cache.reader import Cache
from cache.schema import MANIFEST, Kind, Manifest, read_manifest

Tick = Callable[[int], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """A finished cache in the root."""

    path: Path
    manifest: Manifest | None
    """None: it cannot be read."""
    problem: str = ""


class Root:
    """The folder; it need not be there as long as nothing is made."""

    def __init__(self, path: Path) -> None:
        """Raises Refused: something else than a folder is there."""
        if path.exists() and not path.is_dir():
            raise Refused(f"--cache-root {path} is no folder.")
        self.path = path

    def place(self, of: Plan | Manifest) -> Path:
        """Where this cache belongs."""
        if of.kind == "crops":
            return self.crops(of.info.dataset, of.fingerprint)
        name = f"{_safe(of.info.backbone)}-{short(of.fingerprint)}"
        return self.path / "latents" / _safe(of.info.dataset) / name

    def crops(self, dataset: str, key: str) -> Path:
        """Where the crop cache with the fingerprint `key` belongs."""
        return self.path / "crops" / f"{_safe(dataset)}-{_digits(key)}"

    def find(self, of: Plan | Manifest) -> Path | None:
        """The finished cache with this fingerprint, in whichever store; None: there is none.

        Its manifest and its files are looked at, not its rows: whoever reads those checks them.

        Raises:
            CacheExistsError: another cache, or something else, is in its place.
            CacheDamagedError: it is there, and not whole.
        """
        return self._whole(self.place(of), of.kind, of.fingerprint)

    def find_crops(self, dataset: str, key: str) -> Path | None:
        """As `find`, of a crop cache."""
        return self._whole(self.crops(dataset, key), "crops", key)

    def _whole(self, place: Path, kind: Kind, key: str) -> Path | None:
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return None
        if not (place / MANIFEST).is_file():
            raise CacheExistsError(
                f"{place} is where the cache root keeps the cache {key}, and something else is "
                "there: move it away."
            )
        try:
            with Cache(place) as cache:
                found = cache.manifest
            missing = sorted(expected_files(found) - found_files(place)[0])
            if missing:
                raise CacheDamagedError(f"{place / missing[0]} is missing.")
        except CacheDamagedError as error:
            raise CacheDamagedError(
                f"The cache root has this cache, but it is damaged: {error} "
                f"lgr-pipe cache verify {place} tells all; delete that folder to have it made anew."
            ) from None
        if (found.kind, found.fingerprint) != (kind, key):
            raise CacheExistsError(
                f"{place} is where the cache root keeps the cache {key}, but "
                f"{found.fingerprint} is there: move it away."
            )
        return place

    def latents(self) -> Iterator[Entry]:
        """All finished latent caches, by path."""
        for manifest in sorted((self.path / "latents").glob(f"*/*/{MANIFEST}")):
            path = manifest.parent
            if path.name.startswith("."):  # set aside, or at work
                continue
            try:
                yield Entry(path, read_manifest(path))
            except Refused as error:
                yield Entry(path, None, str(error))

    def put(self, source: Path, *, made: str, tick: Tick) -> Path | None:
        """Copy the finished cache `source` to its place; None: one is there already.

        `made`, `tick`: as for convert.

        Raises:
            CacheExistsError: something else is in its place.
            CacheDamagedError: `source`, or what is in its place, is damaged.
        """
        manifest = read_manifest(source)
        if self.find(manifest) is not None:
            return None
        place = self.place(manifest)
        try:
            convert(source, place, manifest.store, overwrite=False, made=made, tick=tick)
        except CacheExistsError:
            if self.find(manifest) is None:
                raise
            return None  # another project was quicker
        return place


def _safe(name: str) -> str:
    """Raises Refused: a name, perhaps a stranger's, that is none for a folder."""
    if not _NAME.fullmatch(name):
        raise Refused(f"{name[:100]!r} is no name that a cache root can use for a folder.")
    return name


def _digits(key: str) -> str:
    """Raises Refused: no fingerprint."""
    if not re.fullmatch(r"blake2b:[0-9a-f]{40}", key):
        raise Refused(f"{key[:100]!r} is no fingerprint.")
    return short(key)
