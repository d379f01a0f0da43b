"""Where the files of a cache are read from: a folder on disk, or memory, into which they came
from elsewhere (cache/remote)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal


@dataclass(frozen=True)
class _Stat:
    st_size: int


class Held:
    """A file or folder in memory, with as much of a `Path` as readers of caches use."""

    def __init__(self, shown: str, files: Mapping[str, bytes], inside: str = "") -> None:
        """`shown`: its name in messages; `files`: bytes by name, folders divided by slashes.

        `inside`: which file or folder of them this is.
        """
        self._shown, self._all, self._inside = shown, files, inside

    def __str__(self) -> str:
        return f"{self._shown}/{self._inside}" if self._inside else self._shown

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    def __truediv__(self, name: str) -> Held:
        return Held(self._shown, self._all, f"{self._inside}/{name}".removeprefix("/"))

    def files(self) -> dict[str, bytes]:
        """All files in this folder, by their names relative to it."""
        start = f"{self._inside}/" if self._inside else ""
        return {n.removeprefix(start): b for n, b in self._all.items() if n.startswith(start)}

    def is_dir(self) -> bool:
        return bool(self.files())

    def is_file(self) -> bool:
        return self._inside in self._all

    def stat(self) -> _Stat:
        return _Stat(len(self.read_bytes()))

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError: there is no such file."""
        if not self.is_file():
            raise FileNotFoundError(str(self))
        return self._all[self._inside]

    def open(self, mode: Literal["rb"]) -> BinaryIO:  # noqa: ARG002 - as a Path is opened
        """Shares the bytes; nothing is copied."""
        return io.BytesIO(self.read_bytes())


Place = Path | Held
"""A file or folder that is only read."""
