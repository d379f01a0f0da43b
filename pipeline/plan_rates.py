"""What an image costs, measured by really cropping and extracting a few in a folder that goes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from cache.files import tree_bytes
from cache.parts import Parts
from cache.reader import Cache
from cache.schema import MANIFEST, SAMPLES, Manifest
from pipeline import crops as crop_room
from pipeline.params import Params
from stages.extract.backbones import choose, cost
from stages.extract.crop import CropWork, prepare, publish_crops
from stages.extract.cropper import Cropper
from stages.extract.faces import crop_image
from stages.extract.forward import GROUP
from stages.extract.latents import (
    Extractor,
    RootSettings,
    crops_are,
    latent_plan,
    publish_latents,
)
from stages.extract.source import CachedCrops, CropUnit
from stages.extract.unit import tasks_of
from stages.extract.weights import Weights, load

FEW = 256
"""Images that are measured where --limit says nothing."""


@dataclass(frozen=True)
class Kept:
    """What a finished cache and the work on it take on disk, in bytes a row."""

    ratio: float
    """Bytes of the bulk column on disk for each of its own: below 1 where it was compressed."""
    line: float
    """Of the sample table."""
    work: float
    """Of what lies beside the parts until the cache is finished: records, perhaps a table."""
    manifest: int
    """Bytes of the whole; no row adds to it."""


@dataclass(frozen=True)
class Rates:
    """Seconds of one processor core for each image."""

    images: int
    """How many were measured."""
    usable: float
    """Share of the images of which a latent is made."""
    read: float
    """The digest of its bytes; each job takes them of all images."""
    crop: float
    """Decoding, the search for a face, the crop on disk."""
    root: float
    """Of a latent, as the next."""
    gpu: float | None
    """Seconds of the GPU; None: there is none."""
    finish: float
    """Putting both caches together, which one process does."""
    crops: Kept
    latents: Kept


def measure(params: Params, *, device: str, download: bool) -> Rates:
    """Crop and extract the first --limit images by one core, into a temporary folder.

    Raises:
        Refused: the settings or images are none that `extract` would take.
    """
    asked = params.dataset
    few = asked.model_copy(update={"limit": asked.limit or FEW})
    params = params.model_copy(update={"dataset": few})
    dataset = crop_room.read_dataset(params, download=download)
    import_module(f"cache.stores.{params.store}_store")  # nobody's time
    with _one_thread(), tempfile.TemporaryDirectory(prefix="lgr-pipe-plan-") as name:
        clock = _cpu()
        work = prepare(dataset, crop_room.crop_settings(params), _nothing)
        read = clock()
        crops, crop = _crops(Path(name) / "crops", work, params.store)
        kept, clock = _work_kept(crops), _cpu()
        started = time.time()
        manifest = publish_crops(crops, store=params.store, overwrite=False, started=started)
        finish = clock()
        crops_kept = _kept(crops.out, manifest, kept)
        with Cache(crops.out) as cache:
            latents, root, gpu = _latents(Path(name) / "latents", cache, params, device)
            kept, clock = _work_kept(latents), _cpu()
            made = publish_latents(
                latents, cache, store=params.store, overwrite=False, started=started
            )
        finish += clock()
        latents_kept = _kept(latents.out, made, kept)
    n, m = manifest.rows, made.rows
    return Rates(
        images=n,
        usable=m / n,
        read=read / n,
        crop=crop / n,
        root=root / m,
        gpu=None if gpu is None else gpu / m,
        finish=finish / n,
        crops=crops_kept,
        latents=latents_kept,
    )


def _nothing(_: int) -> None:
    """A tick."""


def _cpu() -> Callable[[], float]:
    """A clock of processor time, which other programs on the machine do not slow down."""
    started = time.process_time()
    return lambda: time.process_time() - started


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other would count as work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _crops(out: Path, work: CropWork, store: str) -> tuple[Parts, float]:
    """All units, and the seconds that they took."""
    parts = Parts(out, work.plan(store))
    crop_image(tasks_of(work, [0])[0], work.settings)  # the detector is made once
    with Cropper(work, parts, workers=1, tick=_nothing) as cropper:
        clock = _cpu()
        for _ in cropper.units(parts.plan.units):
            pass
        return parts, clock()


def _latents(
    out: Path, crops: Cache, params: Params, device: str
) -> tuple[Parts, float, float | None]:
    """All units, and the seconds that they took a core, and a GPU if `device` is one."""
    asked = params.extract
    tap = choose(asked.backbone, asked.layer)
    settings = RootSettings(tap, asked.activation, asked.normalize, asked.dtype)
    weights = load(tap, asked.weights, asked.weights_seed)
    of_root = cost(tap, crops.manifest.columns["crops"].shape[1])
    plan = latent_plan(crops_are(crops), settings, weights, of_root, params.store)
    parts = Parts(out, plan).start()
    root = _root(parts, settings, weights, crops, "cpu", _cpu)
    gpu = None if device == "cpu" else _root(parts, settings, weights, crops, device, _wall)
    return parts, root, gpu


def _wall() -> Callable[[], float]:
    started = time.perf_counter()
    return lambda: time.perf_counter() - started


def _root(
    parts: Parts,
    settings: RootSettings,
    weights: Weights,
    crops: Cache,
    device: str,
    start: Callable[[], Callable[[], float]],
) -> float:
    """Seconds for all units, by the clock that `start` starts."""
    source = CachedCrops(crops)
    extractor = Extractor(parts, settings, weights, device=device, tick=_nothing)
    extractor.calibrate(source)
    (first,) = source.units([0])
    extractor.unit(CropUnit(0, first.pixels[:GROUP], first.status[:GROUP]))  # once a process
    clock = start()
    for unit in source.units(parts.plan.units):
        rows, note = extractor.unit(unit)
        if device == "cpu":  # beside a GPU, another thread waits for the disk
            parts.write(unit.index, rows, note)
    return clock()


def _work_kept(parts: Parts) -> float:
    """Bytes a row of what lies in the scratch folder beside the parts."""
    beside = tree_bytes(parts.scratch) - tree_bytes(parts.scratch / "parts")
    return beside / parts.plan.rows


def _kept(out: Path, manifest: Manifest, work: float) -> Kept:
    bulk = manifest.columns[manifest.bulk]
    raw = math.prod(bulk.shape) * np.dtype(bulk.dtype).itemsize
    zarr = manifest.store == "zarr"  # HDF5 is not compressed
    stored = tree_bytes(out / "data.zarr" / manifest.bulk) if zarr else raw
    return Kept(
        ratio=stored / raw,
        line=(out / SAMPLES).stat().st_size / manifest.rows,
        work=work,
        manifest=(out / MANIFEST).stat().st_size,
    )
