"""Whether the workers of a Dask cluster can do a job, before any of it is sent.

Workers that join later are asked the same with each unit (worker.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cache.errors import Refused
from pipeline.cluster.client import Client
from pipeline.cluster.worker import About, Job, about, look, other_versions
from pipeline.console import say


def fitted(client: Client, job: Job, device: str | None) -> tuple[Job, bool]:
    """The job as these workers can do it, and whether its root is for those with a GPU only.

    `device`: auto, cpu or cuda; None: no root is run.

    Raises:
        Refused: a worker without this package, with another version of it or without the
            folders; no GPU where one was asked for.
    """
    own = about(root=device is not None)
    found = on_all(client, about, root=device is not None)
    refuse_other_versions(own, found)
    gpu = device in ("auto", "cuda") and offered(client, "GPU")
    job = replace(
        job,
        deciding=own.deciding,
        threads=_threads(found.values()),
        device="cpu" if device is None else _device(device, found.values(), gpu),
    )
    for worker, said in on_all(client, look, job).items():
        if said:
            raise Refused(f"Worker {worker} on {found[worker].host}: {said}")
    return job, gpu


def on_all(client: Client, function: Callable[..., Any], *words: Any, **named: Any) -> Any:
    """What a function of this package returns, by the address of each worker.

    Raises:
        Refused: a worker does not have it, or did not live to answer.
    """
    answers = client.run(function, *words, on_error="return", **named)
    for worker, answer in answers.items():
        if isinstance(answer, BaseException):
            raise Refused(
                f"Worker {worker} cannot run lgr-pipe: {answer or type(answer).__name__}. The "
                "same version must be installed there."
            )
    return answers


def refuse_other_versions(own: About, found: dict[str, About]) -> None:
    """Raise Refused for a version that decides values; say which others differ."""
    for worker, one in found.items():
        if one.deciding != own.deciding:
            said = other_versions(own.deciding, one.deciding)
            raise Refused(f"Worker {worker} on {one.host}: {said}")
    differing = sorted(
        {
            f"{name} {one.others.get(name, 'none')} on {one.host} ({version} here)"
            for one in found.values()
            for name, version in own.others.items()
            if one.others.get(name) != version
        }
    )
    if differing:
        say(f"Note: not all versions are the same: {'; '.join(differing[:8])}.")


def offered(client: Client, resource: str) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get(resource, 0) >= 1 for worker in workers)


def _threads(found: Iterable[About]) -> dict[str, int]:
    """The same share of a machine's cores for each worker on it."""
    cores = {one.host: one.cores for one in found}
    return {
        host: max(1, cores[host] // workers)
        for host, workers in Counter(one.host for one in found).items()
    }


def _device(asked: str, found: Iterable[About], gpu: bool) -> str:
    if asked not in ("auto", "cpu", "cuda"):
        raise Refused(f"--device must be auto, cpu or cuda, got {asked!r}.")
    everywhere = all(one.cuda for one in found)
    if asked == "cuda" and not (gpu or everywhere):
        raise Refused(
            "--device cuda: not all workers have a usable GPU, and none offers one. Start those "
            'that have one with --resources "GPU=1".'
        )
    return "cuda" if asked != "cpu" and (gpu or everywhere) else "cpu"
