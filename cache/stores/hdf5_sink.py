"""The file under an HDF5 file that is being written, on a disk that may be full.

HDF5 keeps what it could not write, tries again whenever the file is closed, and
complains for ever after.  So it never hears of a failure: the first one is kept
here, nothing more is written, and the writer asks for it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class Sink(io.FileIO):
    """A new file, for `h5py.File(sink, "w")`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._path = path
        self._failure: OSError | None = None

    def write(self, data: Any) -> int:
        """All of `data`, or after a failure nothing."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while self._failure is None and left:
                left = left[super().write(left) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            if self._failure is None:
                return super().truncate(size)
        except OSError as error:
            self._failure = error
        return size or 0

    def raise_failure(self) -> None:
        """Raises OSError, with the name of the file, if anything could not be written."""
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror, str(self._path))
