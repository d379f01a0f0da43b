"""One unit of work by itself, for processes that share a file system and nothing else.

What all units have in common lies in the scratch folder, or is loaded once a
process; what only this unit needs comes with the call.  A unit made twice is
the same unit, so that whoever asks may ask again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheMismatchError, CacheMissingError, Refused
from cache.fingerprint import differences
from cache.parts import PLAN, Parts
from cache.progress import work_in
from cache.reader import Cache
from stages.extract.crop import CropWork, sample_columns, sample_table
from stages.extract.cropper import packed
from stages.extract.faces import CropSettings, Task, crop_image
from stages.extract.notes import crop_note
from stages.extract.source import CachedCrops, CropSource, CropUnit

if TYPE_CHECKING:  # they import torch, which those who crop do not need
    from stages.extract.latents import Extractor, RootSettings

_ONCE = threading.RLock()
"""A process that works in several threads loads a root once still."""


@dataclass(frozen=True)
class Scratch:
    """A scratch folder, by the name that it has everywhere."""

    folder: Path
    fingerprint: str
    """Of what is made in it."""

    def parts(self) -> Parts:
        """Raises Refused: this process does not see it."""
        with _ONCE:
            return _parts(self.folder, self.fingerprint)


@dataclass(frozen=True)
class Finished:
    """A finished crop cache, by the name that it has everywhere."""

    path: Path
    fingerprint: str

    def cache(self) -> Cache:
        """Raises Refused: this process does not see it."""
        with _ONCE:
            return _cache(self.path, self.fingerprint)


@dataclass(frozen=True)
class RootWanted:
    """A root that any process can load."""

    settings: RootSettings
    weights: str
    """As `weights.load` takes them; a file by its whole path."""
    seed: int
    batch_size: int


def unseen(path: Path) -> Refused:
    return Refused(
        f"There is no {path} here: all workers must see the same folders under the same names, on "
        "a file system that they share."
    )


@functools.lru_cache(maxsize=8)
def _parts(folder: Path, fingerprint: str) -> Parts:
    work = work_in(folder)
    if work is None or work.plan.fingerprint != fingerprint:
        raise unseen(folder / PLAN)
    return Parts(work.out, work.plan)


@functools.lru_cache(maxsize=2)
def _cache(path: Path, fingerprint: str) -> Cache:
    try:
        cache = Cache(path)
    except CacheMissingError:
        raise unseen(path) from None
    if cache.manifest.fingerprint != fingerprint:
        raise unseen(path)
    return cache


def tasks_of(work: CropWork, rows: Sequence[int]) -> list[Task]:
    """What is to be cropped; files by their whole paths."""
    samples = [work.dataset.samples[row] for row in rows]
    images = [s.image.absolute() if isinstance(s.image, Path) else s.image for s in samples]
    return [
        Task(image, work.digests[row], sample.box)
        for row, sample, image in zip(rows, samples, images, strict=True)
    ]


def make_crops(
    scratch: Scratch, unit: int, tasks: Sequence[Task], settings: CropSettings
) -> int | None:
    """Crop a unit; how many rows that made, None: it is there already.

    Raises:
        Refused: an image that changed, a scratch folder that is not there or vanished.
    """
    parts = scratch.parts()
    if parts.done(unit):
        return None
    pixels, note = packed([crop_image(task, settings) for task in tasks])
    parts.write(unit, pixels, note)
    return len(pixels)


def make_latents(
    scratch: Scratch, unit: int, crops: Scratch | Finished, wanted: RootWanted, device: str
) -> int | None:
    """Run the root over a unit whose crops are there; how many latents that made, None: they are
    there already.

    Raises:
        Refused: weights that are not those of the plan, no calibration yet.
    """
    parts = scratch.parts()
    if parts.done(unit):
        return None
    extractor = _extractor_of(scratch, wanted, device)
    source = _source(crops)
    with _ONCE:  # it reads what is in the scratch folder now: perhaps not what it was
        extractor.calibrate(source)
    (crop_unit,) = source.units([unit])
    rows, note = extractor.unit(crop_unit)
    parts.write(unit, rows, note)
    return len(rows)


def calibrate_root(
    scratch: Scratch, crops: Scratch | Finished, wanted: RootWanted, device: str
) -> None:
    """Calibrate a random root for all who make these parts: its first training crops are there.

    Raises:
        Refused: there are too few.
    """
    _extractor_of(scratch, wanted, device).calibrate(_source(crops))


def _extractor_of(scratch: Scratch, wanted: RootWanted, device: str) -> Extractor:
    with _ONCE:
        return _extractor(scratch, wanted, device)


@functools.lru_cache(maxsize=2)
def _extractor(scratch: Scratch, wanted: RootWanted, device: str) -> Extractor:
    """The root, on its device, from weights that must be those of the plan."""
    from stages.extract.latents import Extractor
    from stages.extract.weights import load

    parts = scratch.parts()
    weights = load(wanted.settings.tap, wanted.weights, wanted.seed)
    planned = parts.plan.settings["root"]["weights"]
    lines = differences(planned, weights.fingerprinted)
    if lines:
        shown = "\n  ".join(lines)
        raise CacheMismatchError(
            f"There are other weights here under the name {wanted.weights}:\n  {shown}"
        )
    return Extractor(
        parts,
        wanted.settings,
        weights,
        device=device,
        tick=lambda _: None,
        batch_size=wanted.batch_size,
    )


def _source(crops: Scratch | Finished) -> CropSource:
    return CachedCrops(crops.cache()) if isinstance(crops, Finished) else _Made(crops.parts())


class _Made:
    """Crops of units that are finished, in a scratch folder."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def split(self) -> NDArray[np.uint8]:
        """Column `split` of the cache to be."""
        columns = sample_columns(sample_table(self._parts), self._parts.plan.classes)
        split: NDArray[np.uint8] = columns["split"]
        return split

    def units(self, wanted: Sequence[int]) -> Iterator[CropUnit]:
        for unit in wanted:
            status = np.array(crop_note(self._parts, unit).status, dtype=np.uint8)
            yield CropUnit(unit, self._parts.read(unit), status)

    def stop(self) -> None:
        """Nothing is waited for."""
