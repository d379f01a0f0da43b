"""What runs on the workers of a Dask cluster.

Everything here is named, not sent: workers must have the same version of this
package.  Only small records go back, and refusals go back as sentences.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cache.errors import CacheExistsError, Refused
from cache.provenance import versions
from cache.schema import SCHEMA
from pipeline.how import cores
from stages.extract.faces import CropSettings, Task
from stages.extract.unit import (
    Finished,
    RootWanted,
    Scratch,
    calibrate_root,
    make_crops,
    make_latents,
    unseen,
)

Step = Literal["crop", "calibrate", "extract"]


@dataclass(frozen=True)
class About:
    """A worker."""

    host: str
    cores: int
    cuda: bool
    """It has a GPU that torch can use; False where nobody asked."""
    deciding: dict[str, str]
    """Versions that must be the same everywhere."""
    others: dict[str, str]
    """Versions that should be."""


def about(*, root: bool) -> About:
    """This process; `root`: it is to run a network."""
    from stages.extract import faces

    found = versions()
    deciding = {"lgr-pipe": found.pop("lgr-pipe", "none"), "caches": str(SCHEMA)}
    deciding["crops"] = str(faces.VERSION)
    cuda = False
    if root:
        import torch

        from stages.extract import latents

        deciding["latents"] = str(latents.VERSION)
        cuda = torch.cuda.is_available()
    return About(socket.gethostname(), cores(), cuda, deciding, found)


@dataclass(frozen=True)
class Job:
    """What all units of a run have in common; small, for it travels with each."""

    crops: Scratch | Finished
    cropping: CropSettings | None = None
    """None: the crops are finished."""
    images: Path | None = None
    """The folder that they are read from."""
    latents: Scratch | None = None
    """None: only crops are made."""
    root: RootWanted | None = None
    device: str = "cpu"
    deciding: dict[str, str] = field(default_factory=dict)
    """Versions, as in About."""
    threads: dict[str, int] = field(default_factory=dict)
    """Of the root, by host: as many as leave each worker there the same."""


@dataclass(frozen=True)
class Record:
    """What became of a unit."""

    step: Step
    unit: int
    host: str
    made: int | None
    """Rows; None: they were there already."""
    refused: str = ""
    """The sentence, if it was."""
    overtaken: bool = False
    """Refused because another run has finished the cache."""


def look(job: Job) -> str:
    """What is in the way of this worker, in a sentence; or ""."""
    try:
        _refuse_unfit(job)
    except Refused as error:
        return str(error)
    return ""


def _refuse_unfit(job: Job) -> None:
    here = about(root=job.root is not None)
    if here.deciding != job.deciding:
        raise Refused(other_versions(job.deciding, here.deciding))
    for place in (job.crops, job.latents):
        if isinstance(place, Finished):
            place.cache()
        elif place is not None:
            place.parts()
    if job.images is not None and not job.images.is_dir():
        raise unseen(job.images)


def other_versions(wanted: dict[str, str], found: dict[str, str]) -> str:
    """Both as in About.deciding, of which some differ."""
    said = ", ".join(
        f"{name} {found.get(name, 'none')} instead of {version}"
        for name, version in wanted.items()
        if found.get(name) != version
    )
    return f"Another version of lgr-pipe is installed here ({said}): all must have the same."


def do(job: Job, step: Step, unit: int, tasks: Sequence[Task]) -> Record:
    """One step for one unit; `tasks`: its images, to crop."""
    made, refused, overtaken = None, "", False
    try:
        _refuse_unfit(job)
        made = _do(job, step, unit, tasks)
    except (Refused, FileNotFoundError) as error:
        gone = _overtaken(job)
        if gone is None and not isinstance(error, Refused):
            raise
        refused, overtaken = str(gone or error), gone is not None
    return Record(step, unit, socket.gethostname(), made, refused, overtaken)


def _overtaken(job: Job) -> CacheExistsError | None:
    """Scratch folders that this process has seen vanish when their caches are finished."""
    for place in (job.crops, job.latents):
        if isinstance(place, Scratch) and not place.folder.exists():
            try:
                return place.parts().overtaken()
            except Refused:  # it has never seen it
                return None
    return None


def _do(job: Job, step: Step, unit: int, tasks: Sequence[Task]) -> int | None:
    if step == "crop":
        assert isinstance(job.crops, Scratch)
        assert job.cropping is not None
        return make_crops(job.crops, unit, tasks, job.cropping)
    assert job.latents is not None
    assert job.root is not None
    import torch

    from pipeline.device import choose

    torch.set_num_threads(job.threads.get(socket.gethostname(), 1))
    device = choose(job.device)
    if step == "calibrate":
        calibrate_root(job.latents, job.crops, job.root, device)
        return 0
    return make_latents(job.latents, unit, job.crops, job.root, device)
