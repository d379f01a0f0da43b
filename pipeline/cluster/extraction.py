"""Units of crop and latent caches on the workers of a Dask cluster.

This process reads every image once for its digest, prepares the scratch
folders and finishes the caches; what lies between is made unit by unit by
workers that see the same folders.  It may die at any time: the same command
goes on with the units that are missing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheExistsError, Refused
from cache.parts import Parts
from cache.schema import SPLITS, read_manifest
from cache.writer import published
from pipeline.cluster.client import Local, connected
from pipeline.cluster.fitting import fitted
from pipeline.cluster.tasks import Call, run_calls
from pipeline.cluster.worker import Job, Record, Step, do
from pipeline.console import Bars, Tick, bars, say
from pipeline.how import Dask, How, bar, cores, tidy
from pipeline.jobs import interruptible
from stages.datasets.sample import short, some
from stages.extract.crop import CropWork
from stages.extract.faces import USABLE, Task
from stages.extract.notes import crop_note
from stages.extract.unit import Finished, RootWanted, Scratch, tasks_of

_PATIENCE = 10.0
"""Seconds for another run to put in its place what it has finished."""


@dataclass(frozen=True)
class Cropping:
    """Crops to make."""

    work: CropWork
    parts: Parts
    todo: Sequence[int]
    tick: Tick


@dataclass(frozen=True)
class Extraction:
    """Latents to make."""

    parts: Parts
    todo: Sequence[int]
    tick: Tick
    root: RootWanted
    device: str
    """auto, cpu or cuda."""
    calibrate: int
    """Training crops that a random root must see first; 0: the root is ready."""


def make_crops(work: CropWork, parts: Parts, how: How) -> int:
    """All crops that are missing in `parts`; returns how many were made.

    Raises:
        Refused: what a worker refused; a cluster that cannot do it.
        CacheExistsError: another run was quicker.
    """
    with bars() as shown, tidy(parts, how):
        return _run(how, _cropping(shown, work, parts), None, parts.out)


def make_latents(
    work: CropWork | None, crops: Parts | Path, parts: Parts, root: RootWanted, how: How
) -> int:
    """All latents that are missing in `parts`, and the crops where there is `work`; returns how
    many latents were made.  Raises as `make_crops` does."""
    from stages.extract.calibrate import CALIBRATION_ROWS, is_calibrated

    units = parts.plan.units
    todo = parts.todo(units)
    needed = 0 if root.weights != "random" or is_calibrated(parts) else CALIBRATION_ROWS
    with bars() as shown, ExitStack() as tidied:
        tidied.enter_context(tidy(parts, how))
        cropping = None
        if work is not None and isinstance(crops, Parts):
            tidied.enter_context(tidy(crops, how))
            cropping = _cropping(shown, work, crops)
        tick = bar(shown, f"extract {root.settings.tap.name}", parts, units, todo)
        extraction = Extraction(parts, todo, tick, root, how.device, needed)
        return _run(how, cropping, extraction, crops.out if isinstance(crops, Parts) else crops)


def _cropping(shown: Bars, work: CropWork, parts: Parts) -> Cropping:
    units = parts.plan.units
    todo = parts.todo(units)
    return Cropping(work, parts, todo, bar(shown, "crop", parts, units, todo))


def _run(how: How, cropping: Cropping | None, extraction: Extraction | None, crops: Path) -> int:
    """Make all units; returns the rows that were made: latents, if any are asked for."""
    if cropping is not None:
        cropping.parts.start(cropping.work.rows())
    if extraction is not None:
        extraction.parts.start()
    units = {*(cropping.todo if cropping else ()), *(extraction.todo if extraction else ())}
    if not units or how.dask is None:
        return 0
    scheduler, local = how.dask.scheduler, _local(how.dask, cropping, extraction, len(units))
    with interruptible(), connected(scheduler, local) as client:
        device = extraction.device if extraction and extraction.todo else None
        job, gpu = fitted(client, _job(cropping, extraction, crops), device)
        coordinator = _Coordinator(job, cropping, extraction, gpu=gpu)
        run_calls(client, coordinator.take, coordinator.ended)
    if scheduler is not None:
        say(f"{coordinator.units} units were made by workers on {some(sorted(coordinator.hosts))}.")
    return coordinator.made


def _job(cropping: Cropping | None, extraction: Extraction | None, crops: Path) -> Job:
    if cropping is None:
        job = Job(Finished(crops.resolve(), read_manifest(crops).fingerprint))
    else:
        work = cropping.work
        job = Job(_scratch(cropping.parts), work.settings, _folder_of_images(work))
    if extraction is None or not extraction.todo:
        return job
    return replace(job, latents=_scratch(extraction.parts), root=extraction.root)


def _scratch(parts: Parts) -> Scratch:
    return Scratch(parts.scratch, parts.plan.fingerprint)


def _folder_of_images(work: CropWork) -> Path | None:
    """A folder that holds some of them; None: they are no files, or none can be read."""
    for sample, digest in zip(work.dataset.samples, work.digests, strict=True):
        if isinstance(sample.image, Path) and digest.startswith("blake3:"):
            return sample.image.absolute().parent
    return None


def _local(
    dask: Dask, cropping: Cropping | None, extraction: Extraction | None, units: int
) -> Local:
    """One worker a GPU where the root runs on those, and beside them those who crop; else one a
    core.  No more than there are units."""
    if dask.scheduler is not None:
        return Local(0)
    gpus = 0
    if extraction is not None and extraction.todo:
        from pipeline.device import choose

        if choose(extraction.device) == "cuda":
            import torch

            gpus = min(units, torch.cuda.device_count())
    if gpus and not (cropping and cropping.todo):
        return Local(0, gpus)
    return Local(min(units, dask.workers or max(1, cores() - gpus)), gpus)


class _Coordinator:
    """Hands out the units: crops, and latents as soon as their crops and the root are there."""

    def __init__(
        self, job: Job, cropping: Cropping | None, extraction: Extraction | None, *, gpu: bool
    ) -> None:
        self._job, self._cropping, self._extraction, self._gpu = job, cropping, extraction, gpu
        self._uncropped = set(cropping.todo if cropping else ())
        latents = extraction.todo if extraction else ()
        self._ready = deque(unit for unit in latents if unit not in self._uncropped)
        self._follows = set(latents) & self._uncropped
        self._rows_needed = extraction.calibrate if extraction and latents else 0
        self._calibrating = False
        self._training = self._training_units()
        first = [unit for unit, _ in self._training if unit in self._uncropped]
        self._to_crop = deque([*first, *sorted(self._uncropped - set(first))])
        self._usable: dict[int, int] = {}
        self.made = self.units = 0
        self.hosts: set[str] = set()

    def _training_units(self) -> list[tuple[int, NDArray[np.bool_]]]:
        """Units with training rows, and which of their rows those are, if the root is to see
        crops that are still being made."""
        if not self._rows_needed or self._cropping is None:
            return []
        plan, samples = self._cropping.parts.plan, self._cropping.work.dataset.samples
        train = np.array([(s.split or SPLITS[0]) == SPLITS[0] for s in samples])
        spans = ((unit, plan.rows_of(unit)) for unit in plan.units)
        units = [(unit, train[span.start : span.stop]) for unit, span in spans]
        return [(unit, rows) for unit, rows in units if rows.any()]

    def take(self) -> Call | None:
        if self._rows_needed and not self._calibrating and self._can_calibrate():
            self._calibrating = True
            return self._call("calibrate", 0)
        if self._ready and not self._rows_needed:
            return self._call("extract", self._ready.popleft())
        return self._call("crop", self._to_crop.popleft()) if self._to_crop else None

    def _can_calibrate(self) -> bool:
        """The first training crops are there: enough of them, or all that there will be."""
        seen = 0
        for unit, train in self._training:
            if unit in self._uncropped or seen >= self._rows_needed:
                break
            if unit not in self._usable:
                assert self._cropping is not None
                status = crop_note(self._cropping.parts, unit).status
                self._usable[unit] = int((np.isin(status, USABLE) & train).sum())
            seen += self._usable[unit]
        else:
            return True
        return seen >= self._rows_needed

    def _call(self, step: Step, unit: int) -> Call:
        tasks: Sequence[Task] = ()
        if step == "crop":
            assert self._cropping is not None
            tasks = tasks_of(self._cropping.work, self._rows(unit))
        gpu = self._gpu and step != "crop"
        return Call(do, (self._job, step, unit, tasks), self._words(step, unit), gpu)

    def _rows(self, unit: int) -> range:
        begun = self._cropping or self._extraction
        assert begun is not None
        return begun.parts.plan.rows_of(unit)

    def _words(self, step: Step, unit: int) -> str:
        rows = self._rows(unit)
        if step == "calibrate":
            return "The calibration of the root"
        named = ""
        if self._cropping is not None:
            samples = self._cropping.work.dataset.samples
            named = f": {short(samples[rows[0]].id)} to {short(samples[rows[-1]].id)}"
        return f"Unit {unit} of the {step} step (rows {rows[0]} to {rows[-1]}{named})"

    def ended(self, _: Call, record: Record) -> None:
        """Raises what the worker refused."""
        if record.refused:
            kind = CacheExistsError if record.overtaken else Refused
            raise kind(f"Worker on {record.host}: {record.refused}")
        step, unit = record.step, record.unit
        self.hosts.add(record.host)
        if step == "calibrate":
            self._rows_needed = 0
            return
        self.units += record.made is not None
        if step == "crop":
            assert self._cropping is not None
            self._uncropped.discard(unit)
            self._cropping.tick(len(self._rows(unit)))
            if unit in self._follows:
                self._ready.append(unit)
        else:
            assert self._extraction is not None
            self._extraction.tick(len(self._rows(unit)))
        if step == "extract" or self._extraction is None:
            self.made += record.made or 0


def finished_by_another(parts: Parts, *more: Parts, wait: float = _PATIENCE) -> bool:
    """Another run has put the very same cache in its place, or does so now; then what this run
    has begun of it, and of `more`, is deleted."""
    until = time.monotonic() + wait
    while published(parts) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    for begun in (parts, *more):
        if published(begun) is not None:
            begun.discard()
    return True
