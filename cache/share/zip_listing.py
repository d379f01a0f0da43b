"""What a zip file with a cache says is in it, believed only where it can be true.

Bounded before memory is taken: the directory at the end of the file has at most
`MOST` entries, all are stored (not compressed), so that they cannot hold more
than the file has bytes, and none is read but those that a cache consists of.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cache.errors import CacheDamagedError, CacheMissingError
from cache.printable import printable
from cache.schema import MANIFEST, MANIFEST_LIMIT

MOST = 100_000  # entries: Python takes about 700 bytes of memory for each
_DIRECTORY = 150 * MOST  # bytes
_END, _END64, _AT64 = (struct.Struct(s) for s in ("<4s4H2LH", "<4sQ2H2L4Q", "<4sLQL"))
_AGAIN = "Unzip it yourself and use the folder, or ask for one made by lgr-pipe cache export."


@dataclass(frozen=True)
class Listing:
    """The entries of an open zip file by their names inside the cache."""

    path: Path
    file: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]

    @property
    def size(self) -> int:
        return sum(entry.file_size for entry in self.entries.values())

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One entry.

        Raises:
            CacheDamagedError: its bytes are not there or not what was written.
        """
        with _refusing(self.path), self.file.open(self.entries[name]) as handle:
            yield handle

    def manifest(self) -> bytes:
        if MANIFEST not in self.entries:
            raise CacheDamagedError(f"{_safe(self.path)} holds no {MANIFEST}: it is no cache.")
        if self.entries[MANIFEST].file_size > MANIFEST_LIMIT:
            raise CacheDamagedError(
                f"{_safe(self.path)}: {MANIFEST} is larger than {MANIFEST_LIMIT} bytes; not read."
            )
        with self.open(MANIFEST) as handle:
            return handle.read()


@contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """Open a zip file.

    Raises:
        CacheMissingError: there is no such file.
        CacheDamagedError: it is no zip file, or none that can be unpacked safely.
    """
    if not path.is_file():
        raise CacheMissingError(f"There is no file {path}.")
    _refuse_large_directory(path)
    with _refusing(path):
        file = zipfile.ZipFile(path)
    with file:
        yield Listing(path, file, _entries(path, file))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """All that zipfile raises for files of strangers, as one sentence."""
    try:
        yield
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, OverflowError,
        RuntimeError, ValueError, struct.error,
    ) as error:  # fmt: skip
        raise CacheDamagedError(f"{_safe(path)} cannot be unpacked: {printable(error)}.") from None


def _safe(path: Path) -> str:
    return printable(path)


def _refuse_large_directory(path: Path) -> None:
    """Read the end of the file as zipfile does, but for one number before the rest."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(0, size - _END.size))
        raw = handle.read(_END.size)
        if len(raw) < _END.size or raw[:4] != b"PK\5\6":
            raise CacheDamagedError(f"{_safe(path)} is no zip file, or only half of one.")
        length = _END.unpack(raw)[5]
        place = size - _END.size - _AT64.size
        handle.seek(max(0, place))
        if place >= _END64.size and handle.read(4) == b"PK\6\7":
            handle.seek(place - _END64.size)
            raw = handle.read(_END64.size)
            if raw[:4] != b"PK\6\6":
                raise CacheDamagedError(f"{_safe(path)} is no zip file that can be unpacked.")
            length = _END64.unpack(raw)[8]
    if length > min(_DIRECTORY, size):
        raise CacheDamagedError(
            f"{_safe(path)}: its directory has {length} bytes, more than any of ours; not read."
        )


def _entries(path: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """By name, without the folder that the manifest lies in.  The names are not yet judged."""
    found = file.infolist()
    if len(found) > MOST:
        raise CacheDamagedError(f"{_safe(path)} has {len(found)} entries, more than {MOST}.")
    for entry in found:
        wrong = _wrong(entry)
        if wrong:
            raise CacheDamagedError(
                f"{_safe(path)}: {printable(entry.filename[:200])} {wrong}. {_AGAIN}"
            )
    if sum(entry.file_size for entry in found) > path.stat().st_size:
        raise CacheDamagedError(f"{_safe(path)} says that it holds more than it has bytes.")
    tops = (e.filename.partition("/") for e in found)
    top = next((f"{name}/" for name, _, rest in tops if rest == MANIFEST), "")
    entries = {entry.filename.removeprefix(top): entry for entry in found}
    if len(entries) != len(found):
        raise CacheDamagedError(f"{_safe(path)} has two entries of one name; not unpacked.")
    return entries


def _wrong(entry: zipfile.ZipInfo) -> str:
    if not entry.filename:
        return "(an entry) has no name"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        return "is compressed"
    if entry.header_offset < 0:
        return "lies before the file begins"
    mode = entry.external_attr >> 16
    if entry.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        return "is no plain file"
    return ""
