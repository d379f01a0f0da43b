"""One of the processes that learn seeds at once (seeds_at_once.py).

It reads seeds, a line each, and tells what goes to log and bar as JSON lines, by one socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from cache.errors import Refused
from pipeline.seed_runs import SeedRuns

_EACH = 0.1
"""Seconds between two messages that do nothing but move the bar."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


class SeedFailed(Exception):
    """A mistake in the program: the traceback of the worker is its text."""


@dataclass
class _Telling:
    """What goes to log and bar, by the channel.  It blocks where nobody reads."""

    channel: socket.socket
    seed: int = 0
    _ticks: int = 0
    _told: float = field(default_factory=time.monotonic)

    def tell(self, what: str, **said: Any) -> None:
        self.channel.sendall(json.dumps({"what": what, **said}).encode() + b"\n")

    def write(self, event: str, /, **fields: Any) -> None:
        """As Events.write, with the seed: those of others come in between."""
        self.tell("event", event=event, fields={"seed": self.seed} | fields)

    def scalar(self, name: str, value: float, step: int) -> None:
        self.tell("scalar", name=name, value=value, step=step)

    def tick(self, count: int) -> None:
        self._ticks += count
        if time.monotonic() - self._told >= _EACH:
            self.tick_now()

    def tick_now(self) -> None:
        self.tell("tick", count=self._ticks)
        self._ticks, self._told = 0, time.monotonic()


def work(runs: SeedRuns, channel: socket.socket, parent: int) -> NoReturn:
    """A worker from its first breath: nothing of what it was forked from is tidied up here."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the terminal it comes to all
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # together with the parent
        if os.getppid() == parent:  # it is still there
            code = _learn(runs, channel)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _learn(runs: SeedRuns, channel: socket.socket) -> int:
    """Exit code."""
    telling = _Telling(channel)
    runs = replace(runs, events=telling, tick=telling.tick, begin=lambda: None)
    for line in channel.makefile("rb"):
        telling.seed = int(line)
        try:
            runs.run(telling.seed)
            telling.tick_now()
            telling.tell("done")
        except Exception as error:
            telling.tell("error", **_told(error))
            return 1
    return 0


def _told(error: Exception) -> dict[str, Any]:
    """For `error_of`, of whose errors console.Guarded makes the sentences that one process has."""
    if isinstance(error, Refused):
        return {"kind": "refused", "text": str(error), "place": []}
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else os.fsdecode(error.filename)
        return {"kind": "system", "text": "", "place": [error.errno, error.strerror, name]}
    scarce = isinstance(error, RuntimeError) and "allocate" in str(error)  # torch's words
    if isinstance(error, MemoryError) or scarce:
        return {"kind": "memory", "text": str(error), "place": []}
    return {"kind": "other", "text": traceback.format_exc(), "place": []}


def error_of(kind: str, text: str, place: list[Any]) -> Exception:
    """What `_told` was given, in the other process."""
    match kind:
        case "refused":
            return Refused(text)
        case "system":
            return OSError(*place)
        case "memory":
            return MemoryError(text)
    return SeedFailed(text)
