"""Several seeds of a run at once, each in a process of its own, over one resident cache.

    this process    latents in memory; writes log and bar; hands out seeds; reads what came out
      | fork, once all is loaded, before there is a bar (which has a thread)
    worker          (seed_worker.py) learns the seed that it is told, writes that seed's
                    checkpoints, tells the rest

A worker has the latents of the process that it was forked from: nobody writes to them, so they are
in memory once.  What a seed comes to is read from its checkpoints, as --resume does.  A worker is
ended with SIGKILL: checkpoints are whole at any moment.

Only OpenMP's threads do not survive a fork: until then this process computes on one (`alone`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import typer

from cache.errors import Refused
from pipeline.console import Tick, say
from pipeline.events import Log
from pipeline.seed_runs import Done, SeedRuns
from pipeline.seed_worker import error_of, work

_BLOCK = 1 << 16
_ADVICE = "What was finished is kept: the same command with --resume goes on from there."


def refuse(jobs: int, device: str, resident: str) -> None:
    """`device`: cpu or cuda; `resident`: where the latents are, or are asked to be.

    Raises:
        Refused: seeds cannot be learnt at once like that.
    """
    if jobs == 1:
        return
    instead = "leave --jobs out, and seeds are learnt one after the other"
    if sys.platform != "linux":
        raise Refused(f"--jobs {jobs} forks this process, which is safe on Linux only: {instead}.")
    if device != "cpu":
        raise Refused(
            f"--jobs {jobs} shares the processor's cores among seeds, but the networks are on "
            f"{device}: use --device cpu, or {instead}."
        )
    if resident not in ("auto", "ram"):
        raise Refused(
            f"--jobs {jobs} shares latents that are in memory, but these are on {resident}: use "
            f"--resident ram, or {instead}."
        )


def alone(jobs: int) -> None:
    """Called before anything is computed where seeds are to be learnt at once: OpenMP's threads,
    once there, are missed in a forked process, which would wait for them for ever."""
    if jobs > 1:
        torch.set_num_threads(1)


def learn(
    runs: SeedRuns,
    seeds: Sequence[int],
    jobs: int,
    bar: Callable[[], AbstractContextManager[Tick]],
) -> list[Done]:
    """Of each seed, in order.  At most `jobs` at a time, each on one thread unless `runs` says
    otherwise; `bar` counts the iterations of all.

    Raises:
        What a seed raises, as far as it is a user's mistake, or lack of memory or disk.
        SeedFailed: anything else.
        typer.Exit: a worker was killed; it has been said which seed it was at.
    """
    done = {seed: found for seed in seeds if (found := runs.finished(seed)) is not None}
    todo = deque(seed for seed in seeds if seed not in done)
    runs.checkpoints.tidy(todo)
    threads = runs.threads or 1
    say(
        f"{min(jobs, len(seeds))} seeds at once, {threads} thread{'s' * (threads > 1)} each: "
        "their seconds are those of a machine that they share, as run.json says."
    )
    torch.set_num_threads(threads)  # for run.json; none is started by it
    with _workers(replace(runs, threads=threads), min(jobs, len(todo))) as workers, bar() as tick:
        tick(len(done) * runs.iters * len(runs.scenario.tasks))
        _serve(workers, todo, runs, tick)
    return [done.get(seed) or _result(runs, seed) for seed in seeds]


def _result(runs: SeedRuns, seed: int) -> Done:
    found = runs.finished(seed)
    if found is None:
        raise Refused(f"The result of seed {seed} has vanished from {runs.checkpoints.folder}.")
    return found


@dataclass
class _Worker:
    pid: int
    channel: socket.socket
    seed: int | None = None
    """That it is at."""
    heard: bytes = b""
    """Of a line that is not whole yet."""

    def give(self, todo: deque[int]) -> None:
        """The next seed, or the end."""
        self.seed = todo.popleft() if todo else None
        try:
            if self.seed is None:
                self.channel.shutdown(socket.SHUT_WR)
            else:
                self.channel.sendall(b"%d\n" % self.seed)
        except OSError:
            pass  # it has died: the end of what it says tells

    def lines(self) -> list[bytes] | None:
        """That have come; None: no more will."""
        try:
            block = self.channel.recv(_BLOCK)
        except ConnectionError:  # killed before it had read what it was told
            block = b""
        if not block:
            return None
        *whole, self.heard = (self.heard + block).split(b"\n")
        return whole


@contextmanager
def _workers(runs: SeedRuns, count: int) -> Iterator[list[_Worker]]:
    """Forked; none is left at the end, however that comes."""
    workers: list[_Worker] = []
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        # Ctrl-C waits until each worker is known here and has learnt to ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(count):
                workers.append(_fork(runs, workers))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield workers
    finally:
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)  # a zombie at least: nobody else has its id
        for worker in workers:
            os.waitpid(worker.pid, 0)
            worker.channel.close()


def _fork(runs: SeedRuns, others: Sequence[_Worker]) -> _Worker:
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        for channel in (ours, *(worker.channel for worker in others)):
            channel.close()
        work(runs, theirs, parent)
    theirs.close()
    return _Worker(pid, ours)


def _serve(workers: Sequence[_Worker], todo: deque[int], runs: SeedRuns, tick: Tick) -> None:
    """Until all seeds are done, or the first that fails."""
    with selectors.DefaultSelector() as channels:
        for worker in workers:
            channels.register(worker.channel, selectors.EVENT_READ, worker)
            worker.give(todo)
        while channels.get_map():
            for key, _ in channels.select():
                worker = key.data
                lines = worker.lines()
                for line in lines or ():
                    if _heard(json.loads(line), runs, tick):
                        worker.give(todo)
                if lines is None:
                    channels.unregister(worker.channel)
                    _refuse_death(worker, runs.events)


def _heard(said: dict[str, Any], runs: SeedRuns, tick: Tick) -> bool:
    """Whether a seed is done."""
    match said.pop("what"):
        case "tick":
            tick(said["count"])
        case "event":
            if said["event"] == "seed":
                runs.begin()
            runs.events.write(said["event"], **said["fields"])
        case "scalar":
            runs.events.scalar(said["name"], said["value"], said["step"])
        case "done":
            return True
        case _:
            raise error_of(**said)
    return False


def _refuse_death(worker: _Worker, events: Log) -> None:
    """A worker that ends while it is at a seed was killed."""
    if worker.seed is None:
        return
    # It is not waited for here: until `_workers` does so, nobody else can have its id.
    ended = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    how = f"signal {ended.si_status}" if ended and ended.si_code != os.CLD_EXITED else "itself"
    perhaps = ", for lack of memory perhaps" if how == f"signal {signal.SIGKILL:d}" else ""
    why = f"its process was ended by {how}{perhaps}"
    events.write("failed", seed=worker.seed, why=why)
    say(f"Error: seed {worker.seed} is not done: {why}. {_ADVICE}")
    raise typer.Exit(1)
