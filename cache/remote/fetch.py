"""A cache from object storage or a web server, read once into memory and checked as it comes.

    s3://BUCKET/PATH   gs://BUCKET/PATH   https://HOST/PATH   http://HOST/PATH

manifest.json says which files there are and how large they can be, so that no listing of folders
is needed and no server can send without end; provenance.json has the digest of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache.digest import bytes_digest
from cache.errors import CacheDamagedError, CacheMissingError, Refused
from cache.listing import expected_files, read_provenance
from cache.remote.transfer import Missing, Server
from cache.remote.url import Url
from cache.schema import (
    MANIFEST,
    MANIFEST_LIMIT,
    PROVENANCE,
    SAMPLES,
    Manifest,
    read_manifest,
    refuse_rows_without_lines,
)
from cache.source import Held

Tell = Callable[[int, int], None]
"""Bytes that are there, and bytes that there will be, as far as is known."""

_MOST_SHARDS = 1 << 20
_LINE, _SMALL = 1 << 14, 1 << 20
"""Bytes: a line of the sample table has less on average, a file beside the arrays less than 64."""

Where = Path | Url


def locate(text: str) -> Where:
    """A folder, or a URL if there is `://` in it.

    Raises:
        Refused: a URL of another kind.
    """
    return Url.parse(text) if "://" in text else Path(text)


@dataclass(frozen=True)
class Fetched:
    place: Held
    bytes: int
    cuts: int
    """How often the connection failed, without harm."""


def fetch(url: Url, room: int, tell: Tell, *, checked: bool = True) -> Fetched:
    """All files of the cache at `url`; `room`: bytes of memory that they may take.

    Not `checked`: what is missing or not what was written is left to who reads it.

    Raises:
        CacheMissingError: there is no manifest.
        CacheDamagedError: the manifest is none, or something else is not what was written.
        Refused: no access, no connection, or too large.
    """
    return _Fetching(url, room, tell, checked).all()


class _Fetching:
    def __init__(self, url: Url, room: int, tell: Tell, checked: bool) -> None:
        self._url, self._room, self._tell, self._checked = url, room, tell, checked
        self._server = Server(url)
        self._files: dict[str, bytes] = {}
        self._held = Held(str(url), self._files)
        self._taken = self._coming = 0

    def all(self) -> Fetched:
        manifest = self._manifest()
        self._get(SAMPLES, manifest.rows * _LINE + _SMALL)
        if self._checked:
            refuse_rows_without_lines(manifest, self._held)
        self._refuse_large(manifest)
        sizes = _sizes(manifest, len(self._files[MANIFEST]))
        self._get(PROVENANCE, 64 * _SMALL + 1024 * len(sizes))
        digests = read_provenance(self._held).get("files", {}) if self._checked else {}
        self._refuse_other(SAMPLES, digests)
        self._coming = sum(size.usual for size in sizes.values())
        for name, size in sizes.items():
            self._coming -= size.usual
            self._get(name, size.most)
            if self._other(name, digests):  # on the way, perhaps: once more
                self._taken -= len(self._files.pop(name))
                self._get(name, size.most)
            self._refuse_other(name, digests)
        return Fetched(self._held, self._taken, self._server.cuts)

    def _manifest(self) -> Manifest:
        try:
            self._add(MANIFEST, MANIFEST_LIMIT)
        except Missing as said:
            raise CacheMissingError(
                f"There is no cache at {self._url}: no {MANIFEST} is there{said}."
            ) from None
        if self._files[MANIFEST].lstrip()[:1] == b"<":
            raise CacheMissingError(
                f"There is no cache at {self._url}: instead of {MANIFEST} comes a web page, as "
                "servers send it for a login or a mistake."
            )
        return read_manifest(self._held)

    def _get(self, name: str, most: int) -> None:
        try:
            self._add(name, most)
        except Missing:
            if self._checked:
                raise CacheDamagedError(
                    f"{self._url}/{name} is missing: the cache there is not whole."
                ) from None

    def _add(self, name: str, most: int) -> None:
        def told(there: int, size: int | None) -> None:
            self._tell(self._taken + there, self._taken + max(there, size or 0) + self._coming)

        data = self._server.read(name, min(most, self._room - self._taken), told)
        self._files[name] = data
        self._taken += len(data)

    def _refuse_large(self, manifest: Manifest) -> None:
        shards = manifest.shards
        need = sum(column.nbytes for column in manifest.columns.values())
        if shards > _MOST_SHARDS:
            raise Refused(
                f"{self._url} has {shards} shards; more than {_MOST_SHARDS} are not read."
            )
        if need > self._room:
            raise Refused(
                f"{self._url} has {need / 1e6:.0f} MB, but there is memory for "
                f"{self._room / 1e6:.0f} MB of it: copy it to a disk by other means, and train "
                "from there."
            )

    def _other(self, name: str, digests: dict[str, str]) -> bool:
        """It has a digest, but not the one that was listed."""
        return name in digests and bytes_digest(self._files[name]) != digests[name]

    def _refuse_other(self, name: str, digests: dict[str, str]) -> None:
        if self._other(name, digests):
            raise CacheDamagedError(
                f"{self._url}/{name} is not what was written: it does not have the digest that "
                "was listed."
            )


@dataclass(frozen=True)
class _Size:
    """Of a file, in bytes."""

    usual: int
    """As if nothing was compressed."""
    most: int


def _sizes(manifest: Manifest, manifest_bytes: int) -> dict[str, _Size]:
    """All files with arrays or what describes them, in the order in which they are fetched."""
    said = _SMALL + 8 * manifest_bytes  # settings and classes, once more and escaped
    bulk = manifest.columns[manifest.bulk]
    shard = manifest.shard_rows * bulk.nbytes // manifest.rows
    if manifest.store == "hdf5":
        need = sum(column.nbytes for column in manifest.columns.values())
        return {"data.h5": _Size(need, need + need // 64 + shard + 16 * said)}
    sizes = {}
    for name in sorted(expected_files(manifest) - {MANIFEST, SAMPLES, PROVENANCE}):
        _, column, *rest = name.split("/")
        if not rest or rest[-1] == "zarr.json":
            sizes[name] = _Size(0, said)
            continue
        whole = manifest.columns[column].nbytes
        need = min(shard, whole) if column == manifest.bulk else whole
        full = max(need, shard) if column == manifest.bulk else whole
        sizes[name] = _Size(need, full + full // 64 + _SMALL)
    return sizes
