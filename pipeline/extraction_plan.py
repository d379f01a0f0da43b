"""`lgr-pipe extract --plan`: what so many images would take, by what a few have taken.

Bytes follow from the settings; seconds, shares and compression from a measurement (plan_rates.py),
times the number of images.  Nothing is made that stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cache.digest import DIGEST_BYTES
from cache.errors import Refused
from cache.limits import MOST_ROWS
from cache.parts import MOST_UNITS
from cache.schema import shard_rows_for
from pipeline import crops as crop_room
from pipeline.how import How, Shard
from pipeline.params import Params
from pipeline.plan_rates import Rates, measure
from stages.extract.backbones import choose, cost

_COLUMNS = {"crops": 4 * 4 + 1 + 2 + 1 + 4 + DIGEST_BYTES, "latents": 2 + 1 + 4 + 4 + DIGEST_BYTES}
"""Bytes a row of box, status, label, split, subject, row and digest, as far as there are."""
_LISTED = 110
"""Bytes of provenance.json for each shard of a Zarr cache: its name and digest."""
LIST_MEMORY, FINALIZE_MEMORY = 900, 150
"""Bytes an image, at the most, of who crops and of who finalizes: tests/bench/test_scale.py."""
_READERS = 4
"""Threads that take the digests of images."""
_JOBS = (1, 16, 256)
_MOST_IMAGES = 10**12


@dataclass(frozen=True)
class Sizes:
    """What the settings say of every image, measured or not."""

    backbone: str
    store: str
    crop_side: int
    dim: int
    dtype: str
    gmacs: float
    """1e9 multiply-accumulates of the root for each crop."""
    unit_rows: int
    """Images in a unit of work; and in a shard of crops."""
    shard_rows: int
    """Of latents."""

    @property
    def crop_bytes(self) -> int:
        return self.crop_side**2 * 3

    @property
    def latent_bytes(self) -> int:
        return self.dim * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Machine:
    """What the hours are worked out for."""

    cores: int
    """Of each job."""
    gpu_tflops: float
    """1e12 operations a second of the root, in practice; where no GPU could be measured."""
    jobs: tuple[int, ...]


@dataclass(frozen=True)
class Disk:
    """Bytes, both caches together where nothing else is said."""

    crops_raw: int
    """As an array."""
    latents_raw: int
    crops: int
    """As they are stored."""
    latents: int
    columns: int
    """All columns beside crops and latents, uncompressed."""
    tables: int
    """samples.jsonl."""
    manifests: int
    """The same however many the images."""
    provenance: int
    work: int
    """Records of the units, and the table that waits beside them; they go at the end."""
    at_most: int
    """While it is made, the finished caches included."""


@dataclass(frozen=True)
class Hours:
    """Of one processor core, but `gpu`."""

    read: float
    """Digests of all images, once."""
    crop: float
    root: float
    """Where there is no GPU."""
    gpu: float
    """Of one GPU, instead."""
    finish: float
    """Of the one process that puts the caches together."""


@dataclass(frozen=True)
class Wall:
    """Hours from the first image to the finished caches."""

    jobs: int
    cpu: float
    """On cores alone."""
    gpu: float
    """With a GPU for each job."""


@dataclass(frozen=True)
class Planned:
    """For one number of images."""

    images: int
    latents: int
    units: int
    caches: int
    """More than one: a single one cannot hold so many rows."""
    crop_files: int
    latent_files: int
    disk: Disk
    list_memory: int
    """Bytes, of each process that reads the data set."""
    finalize_memory: int
    """Bytes, of one process."""
    hours: Hours
    wall: tuple[Wall, ...]


@dataclass(frozen=True)
class Plan:
    sizes: Sizes
    machine: Machine
    rates: Rates
    planned: tuple[Planned, ...]


def parse_images(text: str) -> tuple[int, ...]:
    """
    >>> parse_images("1e5,1e7, 250000")
    (100000, 10000000, 250000)

    Raises:
        Refused: no list of whole numbers above 0.
    """
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(1 <= n <= _MOST_IMAGES and n == int(n) for n in found):
        raise Refused(
            f"--plan-images must be numbers of images from 1 to {_MOST_IMAGES:.0e}, with commas "
            f"between, such as 1e5,1e7,1e9, got {text!r}."
        )
    return tuple(int(n) for n in found)


def make_plan(params: Params, images: tuple[int, ...], how: How, gpu_tflops: float) -> Plan:
    """Measured on some images of the data set.

    Raises:
        Refused: the settings or images are none that `extract` would take.
    """
    sizes = sizes_of(params)
    machine = Machine(how.workers, gpu_tflops, _jobs(how.shard))
    rates = measure(params, device=how.device, download=how.download)
    return Plan(sizes, machine, rates, tuple(planned(n, sizes, machine, rates) for n in images))


def _jobs(shard: Shard | None) -> tuple[int, ...]:
    return _JOBS if shard is None else (1, shard[1])


def sizes_of(params: Params) -> Sizes:
    """Raises Refused: a backbone that is unknown or does not take such crops."""
    asked = params.extract
    tap = choose(asked.backbone, asked.layer)
    side = crop_room.crop_settings(params).size
    root = cost(tap, side)
    return Sizes(
        backbone=tap.name,
        store=params.store,
        crop_side=side,
        dim=root.dim,
        dtype=asked.dtype,
        gmacs=root.macs / 1e9,
        unit_rows=shard_rows_for(side * side * 3),
        shard_rows=shard_rows_for(root.dim * np.dtype(asked.dtype).itemsize),
    )


def planned(images: int, sizes: Sizes, machine: Machine, rates: Rates) -> Planned:
    """Everything in proportion."""
    latents = round(images * rates.usable)
    units = -(-images // sizes.unit_rows)
    zarr = sizes.store == "zarr"
    files = (units, -(-latents // sizes.shard_rows)) if zarr else (1, 1)
    hours = _hours(images, latents, sizes, machine, rates)
    return Planned(
        images=images,
        latents=latents,
        units=units,
        caches=max(-(-images // MOST_ROWS), -(-units // MOST_UNITS)),
        crop_files=files[0],
        latent_files=files[1],
        disk=_disk(images, latents, sum(files), sizes, rates),
        list_memory=images * LIST_MEMORY,
        finalize_memory=images * FINALIZE_MEMORY,
        hours=hours,
        wall=tuple(_wall(hours, jobs, machine.cores) for jobs in machine.jobs),
    )


def _disk(images: int, latents: int, files: int, sizes: Sizes, rates: Rates) -> Disk:
    """At the most: crops are put together while the parts of both are there, then latents while
    theirs are."""
    raw = images * sizes.crop_bytes, latents * sizes.latent_bytes
    stored = round(raw[0] * rates.crops.ratio), round(raw[1] * rates.latents.ratio)
    columns = images * _COLUMNS["crops"] + latents * _COLUMNS["latents"]
    tables = round(images * rates.crops.line + latents * rates.latents.line)
    provenance = _LISTED * files
    work = round(images * (rates.crops.work + rates.latents.work))
    beside = columns + tables + provenance + work
    return Disk(
        crops_raw=raw[0],
        latents_raw=raw[1],
        crops=stored[0],
        latents=stored[1],
        columns=columns,
        tables=tables,
        manifests=rates.crops.manifest + rates.latents.manifest,
        provenance=provenance,
        work=work,
        at_most=beside + stored[0] + raw[1] + max(raw[0], stored[1]),
    )


def _hours(images: int, latents: int, sizes: Sizes, machine: Machine, rates: Rates) -> Hours:
    computed = 2 * sizes.gmacs / (1000 * machine.gpu_tflops)  # an accumulation is an operation too
    return Hours(
        read=images * rates.read / 3600,
        crop=images * rates.crop / 3600,
        root=latents * rates.root / 3600,
        gpu=latents * (computed if rates.gpu is None else rates.gpu) / 3600,
        finish=images * rates.finish / 3600,
    )


def _wall(hours: Hours, jobs: int, cores: int) -> Wall:
    """Each job reads all images for their digests, then makes its share; one puts it together.

    Beside a GPU the cores of its job crop, and the slower of the two is waited for.
    """
    alone = hours.read / min(cores, _READERS) + hours.finish
    crop = hours.crop / (jobs * cores)
    return Wall(
        jobs,
        cpu=alone + crop + hours.root / (jobs * cores),
        gpu=alone + max(crop, hours.gpu / jobs),
    )
