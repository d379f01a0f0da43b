"""The log of a run: one event a line while it happens, and TensorBoard if it is asked for."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cache.errors import Refused

_BLOCK = 1 << 16


class Log(Protocol):
    """What is told while a run goes on, wherever it is written."""

    def write(self, event: str, /, **fields: Any) -> None: ...

    def scalar(self, name: str, value: float, step: int) -> None: ...


class Events:
    """log.jsonl; a context manager that closes it.

    A log that cannot be written (a full disk) raises OSError, where it happens.
    """

    def __init__(
        self, path: Path, *, resume: bool = False, tensorboard: Path | None = None
    ) -> None:
        """`resume` keeps the lines that are whole, otherwise the log starts anew.

        `tensorboard` is the folder for its event files, which are added to those in it.

        Raises:
            Refused: the package tensorboard is not installed; the log is as it was.
            OSError: a place that cannot be written.
        """
        self._board = None if tensorboard is None else _board(tensorboard)
        self._path = path
        if resume and path.exists():
            _cut_torn_line(path)
        self._file = path.open("ab" if resume else "wb")
        self._started = time.perf_counter()

    def write(self, event: str, /, **fields: Any) -> None:
        """A line {"event": ..., "seconds": ..., ...}, flushed.

        Seconds since the log was opened by this process.  `fields` are JSON; NaN and infinities
        become null.

        Raises:
            ValueError: a field named event or seconds.
        """
        if not fields.keys().isdisjoint(("event", "seconds")):
            raise ValueError("an event has its own event and seconds: name the field otherwise")
        seconds = round(time.perf_counter() - self._started, 3)
        line = _finite({"event": event, "seconds": seconds, **fields})
        # ASCII, for a path may hold bytes that are no UTF-8.
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def scalar(self, name: str, value: float, step: int) -> None:
        """A point of a curve, for TensorBoard only."""
        if self._board is not None:
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._board is not None:
                self._board.close()
        finally:
            empty = self._file.tell() == 0
            self._file.close()
            if empty:  # refused before it began
                self._path.unlink(missing_ok=True)


def need_tensorboard() -> Any:
    """Its writer.

    Raises:
        Refused: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Refused(
            "--tensorboard needs the package tensorboard: pip install 'lgr-pipe[tensorboard]'"
        ) from None
    return SummaryWriter


def _board(folder: Path) -> Any:
    # Seconds: it is there to be looked at while the run goes on.
    return need_tensorboard()(str(folder), flush_secs=10)


def _cut_torn_line(path: Path) -> None:
    """What follows the last line break was being written when the process was killed."""
    with path.open("r+b") as handle:
        end = handle.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            handle.seek(start)
            found = handle.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        handle.truncate(end)


def _finite(value: Any) -> Any:
    """The same with None for each NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
