"""A Dask cluster: one that runs somewhere, or one of this machine that ends with this process.

Dask sends pickled calls between its processes, so whoever reaches a scheduler
can run code as its owner: a cluster of one's own, among trusted machines.  The
local one listens on this machine alone, and behind certificates of its own
where `cryptography` is installed.  Nothing that is read from a cache is ever
unpickled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cache.errors import Refused
from cache.printable import printable
from cache.schema import parse_json
from pipeline.console import say
from stages.extract.cropper import ctrl_c_held_back

PATIENCE = 10.0
"""Seconds that a scheduler has to show itself."""
_LOOPBACK = "127.0.0.1"
_FILE_LIMIT = 1_000_000  # bytes; a longer scheduler file is not read

Client = Any
"""distributed.Client."""


@dataclass(frozen=True)
class Local:
    """A cluster of this machine."""

    workers: int
    """Without a GPU of their own."""
    gpus: int = 0
    """As many more, each with one."""


def library() -> Any:
    """The package `distributed`.

    Raises:
        Refused: it is not installed.
    """
    try:
        return import_module("distributed")
    except ImportError:
        raise Refused(
            "--executor dask needs Dask, which is not installed: pip install 'lgr-pipe[dask]'"
        ) from None


@contextmanager
def connected(scheduler: str | None, local: Local) -> Iterator[Client]:
    """A client of the cluster at `scheduler` (an address or a file that says it), or of a new one.

    Raises:
        Refused: Dask is not installed, no such scheduler, none that answers.
    """
    library()
    with _quiet():
        if scheduler is None:
            with _cluster(local) as cluster, _client(cluster, security=cluster.security) as client:
                yield client
        else:
            address = _address(scheduler)
            with _client(address) as client:
                _wait_for_workers(client, address)
                yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask and its loop log of workers that come and go is told by the commands themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _cluster(local: Local) -> Iterator[Any]:
    """Scheduler in this process; one process a worker, each with one thread.

    Killed with -9, this process takes its workers with it: each watches a pipe to it.
    """
    dask, security = library(), _security()
    common = {
        "host": _LOOPBACK,
        "protocol": "tls://" if security.require_encryption else "tcp://",
        "security": security,
        "dashboard": False,
        "dashboard_address": f"{_LOOPBACK}:0",
    }
    with (
        tempfile.TemporaryDirectory(prefix="lgr-pipe-", ignore_cleanup_errors=True) as folder,
        import_module("dask").config.set(
            {"temporary-directory": folder, "distributed.scheduler.worker-saturation": 1.0}
        ),
    ):
        mine = {
            **common,
            "nthreads": 1,
            "memory_limit": 0,  # no data is kept in a worker: nothing to spill, nobody to pause
            "silence_logs": logging.CRITICAL,
        }
        plain = {"cls": dask.Nanny, "options": mine}
        workers: dict[Any, Any] = dict.fromkeys(range(local.workers), plain)
        for k, card in enumerate(_cards(local.gpus)):
            with_gpu = {**mine, "env": {"CUDA_VISIBLE_DEVICES": card}, "resources": {"GPU": 1}}
            workers[f"gpu-{k}"] = {"cls": dask.Nanny, "options": with_gpu}
        with ctrl_c_held_back():  # the loop's thread starts all workers, later ones too
            cluster = dask.SpecCluster(
                workers=workers,
                scheduler={"cls": dask.Scheduler, "options": {**common, "port": 0}},
                security=security,
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            yield cluster


def _security() -> Any:
    security = library().Security
    try:
        return security.temporary()
    except ImportError:
        return security()


def _cards(count: int) -> list[str]:
    """The first GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(k) for k in range(count)]
    return names[:count]


@contextmanager
def _client(cluster: Any, **security: Any) -> Iterator[Client]:
    try:
        client = library().Client(
            cluster, timeout=PATIENCE, set_as_default=False, name="lgr-pipe", **security
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise Refused(
            f"There is no Dask scheduler that answers at {cluster}: {_first_line(error)}. Start "
            "one (dask scheduler --scheduler-file FILE), or leave --dask-scheduler out for a "
            "cluster of this machine."
        ) from None
    with client:
        yield client


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0][:300]).rstrip(".")


def _address(scheduler: str) -> str:
    """Of --dask-scheduler: itself, or what the file says."""
    if "://" in scheduler:
        return scheduler
    path = Path(scheduler)
    until = time.monotonic() + PATIENCE
    while not (path.is_file() and path.stat().st_size):  # it may just be starting
        if time.monotonic() > until:
            raise Refused(
                f"There is no file {scheduler}. --dask-scheduler takes an address such as "
                "tcp://host:8786, or the file that dask scheduler --scheduler-file FILE writes."
            )
        time.sleep(0.1)
    with contextlib.suppress(ValueError):
        with path.open("rb") as handle:
            found = parse_json(handle.read(_FILE_LIMIT))
        address = found.get("address") if isinstance(found, dict) else None
        if isinstance(address, str) and "://" in address and address.isprintable():
            return address
    raise Refused(f"{path} is not what dask scheduler --scheduler-file writes: no address in it.")


def _wait_for_workers(client: Client, address: str) -> None:
    """Jobs in a queue may take their time; Ctrl-C ends the waiting."""
    if not client.nthreads():
        say(f"The scheduler at {address} has no workers yet: waiting for the first.")
        client.wait_for_workers(1)
