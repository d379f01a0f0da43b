"""The runs of a sweep on the workers of a Dask cluster.

A run is a command of its own there too, started by the same function as on
this machine, in the same folder by name; its results lie on the file system
that all share.  Memory is watched by nobody: as many run as there are workers.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.errors import Refused
from pipeline.cluster.client import Local, connected, library
from pipeline.cluster.fitting import offered, on_all, refuse_other_versions
from pipeline.cluster.tasks import Call, run_calls
from pipeline.cluster.worker import about
from pipeline.how import Dask
from pipeline.jobs import Ended, Job, Memory, run_jobs
from stages.extract.unit import unseen


@dataclass(frozen=True)
class Place:
    """Where the command was typed."""

    cwd: Path
    marker: Path
    """A file that is in the folder of the sweep."""
    python: str
    """The interpreter; a worker has its own."""


Make = Callable[[], Job]
"""Makes a job, on the worker: what an earlier attempt has left decides how it is started."""


def run_jobs_on(
    dask: Dask,
    jobs: Sequence[tuple[str, Make]],
    *,
    marker: Path,
    device: str,
    workers: int,
    ended: Callable[[Ended], None],
) -> None:
    """Run all of (name, what makes it); `ended` is told each, in this thread.

    `marker`: a file that workers must see.  `device`: of the jobs, auto, cpu or
    cuda; unless it is cpu, they run only where a GPU is offered, if any is.
    `workers`: of a cluster of this machine without GPUs.

    Raises:
        Refused: a cluster that cannot do it.
    """
    if not jobs:
        return
    place = Place(Path.cwd(), marker.absolute(), sys.executable)
    waiting = deque(jobs)
    with connected(
        dask.scheduler, _local(dask, device, min(workers, len(jobs)), len(jobs))
    ) as client:
        refuse_other_versions(about(root=False), on_all(client, about, root=False))
        for worker, said in on_all(client, look, place).items():
            if said:
                raise Refused(f"Worker {worker}: {said}")
        on_gpu = device != "cpu" and offered(client, "GPU")

        def take() -> Call | None:
            if not waiting:
                return None
            name, make = waiting.popleft()
            return Call(run_one, (make, place), f"The run {name}", on_gpu)

        def told(call: Call, outcome: Ended | str) -> None:
            if isinstance(outcome, str):
                raise Refused(f"{call.what}: {outcome}")
            ended(outcome)

        run_calls(client, take, told)


def _local(dask: Dask, device: str, workers: int, jobs: int) -> Local:
    """One worker for each job at a time; one a GPU where jobs run on those."""
    if dask.scheduler is None and device == "cuda":
        import torch

        return Local(0, min(jobs, dask.workers or jobs, torch.cuda.device_count()))
    return Local(workers)


def look(place: Place) -> str:
    """What is in the way of this worker, in a sentence; or ""."""
    missing = [path for path in (place.cwd, place.marker) if not path.exists()]
    return f"On {socket.gethostname()}: {unseen(missing[0])}" if missing else ""


class _GivenUpError(Exception):
    """Nobody waits for this run any more."""


def run_one(make: Make, place: Place) -> Ended | str:
    """Run a job here to its end, or until whoever asked for it is gone; a sentence: it cannot
    run here."""
    said = look(place)
    if said:
        return said
    job = make()
    if job.argv[0] == place.python:
        job = replace(job, argv=(sys.executable, *job.argv[1:]))
    found: list[Ended] = []
    try:
        run_jobs(
            [replace(job, cwd=place.cwd)],
            most=1,
            memory=Memory(0, lambda: 0),
            ended=found.append,
            look=_refuse_given_up(),
        )
    except _GivenUpError:
        return "it was given up"
    return found[0]


def _refuse_given_up() -> Callable[[], None]:
    """Raises once the call that this thread is in was cancelled: Dask itself never interrupts
    one, and a second run of the same point must not meet the first in its folder."""
    worker: Any = library().get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state in ("cancelled", "released", "forgotten"):
            raise _GivenUpError

    return check
