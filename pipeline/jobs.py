"""Several commands at once, within the cores and the memory that there are.

No job outlives this process, even one that is killed with -9: a job's standard
input is a pipe whose other end is held here, and a job that has called
`end_with_parent` ends when that closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_POLL = 0.1
"""Seconds between two looks at what runs."""
_PATIENCE = 10.0
"""Seconds that a job has to end when it is asked to."""
_MARGIN = 1.2
"""The next job may need more than the largest so far: by this factor."""
_TAIL = 4096
"""Bytes of a log that are read for a job's last words."""


@dataclass(frozen=True)
class Job:
    name: str
    argv: tuple[str, ...]
    log: Path
    """What it says, on both channels; replaced at the start."""
    cwd: Path | None = None
    """The folder that it works in; None: this process's."""


@dataclass(frozen=True)
class Ended:
    job: Job
    code: int
    """0: done; below 0: by this signal."""
    seconds: float
    rss_peak_bytes: int
    """Highest sample of its resident memory; 0 where it was over too soon to be seen."""


class Memory:
    """Whether there is room for one more job."""

    def __init__(self, estimate: int, available: Callable[[], int]) -> None:
        """`estimate`: bytes that a job needs, as long as none has been measured."""
        self.need = estimate
        self._available = available
        self._peak = 0

    def measured(self, peak: int) -> None:
        """A job was seen to need so many bytes (0: not seen): better than the estimate, whether
        that was too high or too low."""
        self._peak = max(self._peak, peak)
        self.need = int(_MARGIN * self._peak) or self.need

    def admits(self, running: Sequence[int]) -> bool:
        """`running`: bytes that the jobs have now.  What they will still take is not free."""
        promised = sum(max(0, self.need - taken) for taken in running)
        return self._available() - promised >= self.need


def end_with_parent() -> None:
    """Called in a job: end at once when the process that started it is gone."""

    def wait() -> None:
        os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    peak: int = 0

    def rss(self) -> int:
        """Resident bytes now; 0 where it has just ended."""
        try:
            now = int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0
        self.peak = max(self.peak, now)
        return now

    def ended(self) -> Ended:
        if self.process.stdin is not None:
            self.process.stdin.close()
        seconds = time.monotonic() - self.started
        return Ended(self.job, self.process.returncode, seconds, self.peak)


def run_jobs(
    jobs: Sequence[Job],
    *,
    most: int,
    memory: Memory,
    ended: Callable[[Ended], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run all, at most `most` at a time, in order; one always runs, whatever memory says.

    `ended` is called as each ends, `look` ten times a second, both in this
    thread.  If they raise, or on Ctrl-C or SIGTERM (see `interruptible`), what
    runs is stopped before this returns.
    """
    waiting, running = deque(jobs), list[_Running]()
    try:
        while waiting or running:
            taken = [one.rss() for one in running]
            if taken and max(taken) > memory.need:
                memory.measured(max(taken))
            if waiting and len(running) < most and (not running or memory.admits(taken)):
                running.append(_start(waiting.popleft()))
                continue
            time.sleep(_POLL)
            look()
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                ended(one.ended())
    finally:
        _stop(running)


def _start(job: Job) -> _Running:
    with job.log.open("wb") as log:
        # A session of its own: Ctrl-C in the terminal reaches it only through here.
        process = subprocess.Popen(
            job.argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=job.cwd,
        )
    return _Running(job, process)


def _stop(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    until = time.monotonic() + _PATIENCE
    for one in running:
        try:
            one.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.ended()


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: by KeyboardInterrupt, so that all is tidied up."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_words(ended: Ended) -> str:
    """Why a job failed, in a line: its last error, or the signal that ended it."""
    with ended.job.log.open("rb") as log:
        log.seek(max(0, ended.job.log.stat().st_size - _TAIL))
        text = log.read(_TAIL).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = [k for k, line in enumerate(lines) if line.startswith("Error:")]
    said = " ".join(lines[starts[-1] :] if starts else lines[-1:])
    if ended.code < 0:
        why = ", for lack of memory perhaps" if ended.code == -signal.SIGKILL else ""
        return f"ended by signal {-ended.code}{why}"
    return said or f"exit code {ended.code}, without a word"
