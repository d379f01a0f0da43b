"""Calls on the workers of a Dask cluster, a bounded number at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, TypeVar

from cache.errors import Refused
from pipeline.cluster.client import Client, library

_RETRIES = 2
"""Of a call that raises.  What a worker's end interrupts is begun anew by the scheduler."""
_AHEAD = 4
"""Calls for each thread of the workers: none waits for work, and the scheduler holds few."""
_SUSPECTS = 0.5
"""Seconds in which all that are suspected together are heard of."""

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    function: Callable[..., Any]
    words: tuple[Any, ...]
    """Its arguments: small, or no larger than a unit of images."""
    what: str
    """For people: what it makes."""
    gpu: bool = False
    """Only for workers that offer the resource GPU, one a GPU at a time."""


def run_calls(
    client: Client,
    take: Callable[[], Call | None],
    ended: Callable[[Call, Any], None],
) -> None:
    """Run what `take` gives until it gives nothing and nothing runs.

    `take` is asked whenever there is room (four calls for each thread of the
    workers that there are now), `ended` is told each result, both in this
    thread.  If anything raises, what waits is given up.

    Raises:
        Refused: a call ended its workers again and again, or the scheduler is gone.
    """
    running: dict[Any, Call] = {}
    finished = library().as_completed(loop=client.loop)
    while True:
        room = _AHEAD * max(1, sum(_answered(client.nthreads).values()))
        while len(running) < room and (call := take()) is not None:
            future = client.submit(
                call.function,
                *call.words,
                pure=False,
                retries=_RETRIES,
                resources={"GPU": 1} if call.gpu else None,
            )
            running[future] = call
            finished.add(future)
        if not running:
            return
        future = next(finished)
        try:
            result = _answered(future.result)
        except library().KilledWorker as error:
            raise _killed(running, error.allowed_failures + 1) from None
        ended(running.pop(future), result)


def _killed(running: dict[Any, Call], times: int) -> Refused:
    """What was waiting in a worker that ended is suspected with what ran in it."""
    time.sleep(_SUSPECTS)
    suspects = [call.what for future, call in running.items() if future.status == "error"]
    named = suspects[0] if len(suspects) == 1 else f"One of these: {'; '.join(suspects)}"
    return Refused(
        f"{named} ended its worker {times} times: for lack of memory, or an image that brings a "
        "decoder down. What was finished is kept."
    )


def _answered(ask: Callable[[], T]) -> T:
    """Raises Refused: the scheduler does not answer any more."""
    try:
        return ask()
    except (CancelledError, library().comm.CommClosedError):
        raise Refused(
            "The connection to the Dask scheduler was lost. What was finished is kept: start a "
            "scheduler and workers, and run the same command again."
        ) from None
