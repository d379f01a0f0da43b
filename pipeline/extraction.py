"""Wire the second half of stage one: crops -> latent cache, making the crops beside it.

Everything that can be refused is refused before anything is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.errors import CacheMismatchError, Refused
from cache.fingerprint import differences
from cache.parts import Parts, unfinished
from cache.reader import Cache
from cache.schema import MANIFEST, read_manifest
from cache.writer import existing_match, refuse_missing
from pipeline import crops as crop_room
from pipeline import summaries
from pipeline.console import Bars, bars, say
from pipeline.how import How, bar, note_others, tidy
from pipeline.params import Params
from stages.extract.backbones import choose, cost
from stages.extract.crop import CropWork, publish_crops
from stages.extract.cropper import Cropper
from stages.extract.latents import (
    CropsAre,
    Extractor,
    RootSettings,
    crops_are,
    latent_plan,
    publish_latents,
)
from stages.extract.source import CachedCrops, CropSource
from stages.extract.weights import Weights, check_names, load


def extract(params: Params, crops: Path, out: Path, how: How) -> None:
    """Make the latent cache `out` (or this run's share), and the crops where they are missing."""
    if crops.resolve() == out.resolve():
        raise Refused(f"--out and --crops are the same folder, {out}: choose another --out.")
    asked = params.extract
    tap = choose(asked.backbone, asked.layer)
    check_names(tap, asked.weights)
    settings = RootSettings(tap, asked.activation, asked.normalize, asked.dtype)
    missing = not crops.exists() or (crops.is_dir() and not any(crops.iterdir()))
    work = crop_room.prepare_crops(params, download=how.download) if missing else None
    before = None if missing else read_manifest(crops).fingerprint
    if work is None:
        crop_room.check(params, crops, how)
    are, size = _crops_to_be(work) if work is not None else _crops_there(crops)
    of_root = cost(tap, size)
    weights = load(tap, asked.weights, asked.weights_seed)
    parts = Parts(out, latent_plan(are, settings, weights, of_root, params.store))
    overwrite = how.overwrite or (how.retry_failed and _retried(out, parts, before))
    wanted = parts.plan.settings
    if existing_match(out, "latents", wanted, params.store, overwrite=overwrite) is not None:
        summaries.nothing_to_do(out)
        return
    note_others(parts)
    if work is not None:
        say(f"There are no crops at {crops} yet: they are made beside the latents.")
    _Run(params.store, crops, how, work, parts, settings, weights, overwrite).go()


def _crops_to_be(work: CropWork) -> tuple[CropsAre, int]:
    plan = work.plan("zarr")
    are = CropsAre(
        plan.fingerprint, plan.rows, plan.unit_rows, work.dataset.name, work.dataset.classes
    )
    return are, work.settings.size


def _crops_there(crops: Path) -> tuple[CropsAre, int]:
    with Cache(crops) as cache:
        return crops_are(cache), cache.manifest.columns["crops"].shape[1]


def _retried(out: Path, parts: Parts, before: str | None) -> bool:
    """The latents at `out` are these, but of the crops as they were before --retry-failed."""
    if not (out / MANIFEST).is_file() or before in (None, parts.plan.settings["crops"]):
        return False
    return read_manifest(out).settings == {**parts.plan.settings, "crops": before}


@dataclass(frozen=True)
class _Run:
    store: str
    crops: Path
    how: How
    work: CropWork | None
    """None: the crops are finished."""
    parts: Parts
    settings: RootSettings
    weights: Weights
    overwrite: bool

    def go(self) -> None:
        started = time.time()
        units = self.how.units(self.parts)
        todo = self.parts.todo(units)
        with (
            bars() as shown,
            tidy(self.parts, self.how),
            self._source(shown, units) as (source, missing),
        ):
            tick = bar(shown, f"extract {self.settings.tap.name}", self.parts, units, todo)
            extractor = Extractor(
                self.parts,
                self.settings,
                self.weights,
                device=self.how.device,
                tick=tick,
                batch_size=self.how.batch_size,
            )
            extractor.run(source, sorted({*todo, *missing}), set(todo))
        if self.how.shard is not None:
            summaries.stripe_done(self.parts, self.how.shard, extractor.made)
            return
        self._publish(extractor.made, started)

    @contextmanager
    def _source(self, shown: Bars, units: list[int]) -> Iterator[tuple[CropSource, list[int]]]:
        """Where the crops come from, and the units of which there are none yet."""
        if self.work is None:
            with Cache(self.crops) as cache:
                yield CachedCrops(cache), []
            return
        parts = Parts(self.crops, self.work.plan(self.store))
        missing = parts.todo(units)
        tick = bar(shown, "crop", parts, units, missing)
        with (
            tidy(parts, self.how),
            Cropper(self.work, parts, workers=self.how.workers, tick=tick) as cropper,
        ):
            yield cropper, missing

    def _publish(self, made: int, started: float) -> None:
        if self.work is not None:
            parts = Parts(self.crops, self.work.plan(self.store))
            manifest = publish_crops(parts, store=self.store, overwrite=False, started=started)
            summaries.finished(self.crops, manifest, manifest.rows, None)
        with Cache(self.crops) as cache:
            manifest = publish_latents(
                self.parts, cache, store=self.store, overwrite=self.overwrite, started=started
            )
        summaries.finished(self.parts.out, manifest, made, time.time() - started)


def finalize(params: Params, crops: Path, out: Path, store: str | None, *, overwrite: bool) -> None:
    """Make the latent cache of the units that --shard runs have made, and the crop cache
    where they have made that too; reads no image."""
    if summaries.finished_already(out, "latents"):
        return
    started = time.time()
    parts = unfinished(out, "latents")
    _refuse_otherwise(params, parts)
    refuse_missing(parts)
    store = store or parts.plan.store
    if not (crops / MANIFEST).is_file():
        _refuse_other_crops(unfinished(crops, "crops").plan.fingerprint, parts, crops)
        crop_room.finalize(params, crops, store, overwrite=False)
    with Cache(crops) as cache:
        _refuse_other_crops(cache.manifest.fingerprint, parts, crops)
        manifest = publish_latents(parts, cache, store=store, overwrite=overwrite, started=started)
    summaries.finished(out, manifest, manifest.rows, None)


def _refuse_otherwise(params: Params, parts: Parts) -> None:
    """What was said of the root must be what the units were made with."""
    said = params.extract.model_dump(include=params.extract.model_fields_set, exclude_none=True)
    found = {**parts.plan.settings["root"], "dtype": parts.plan.settings["dtype"]}
    comparable = said.keys() & {"backbone", "layer", "activation", "normalize", "dtype"}
    lines = differences({k: said[k] for k in comparable}, {k: found[k] for k in comparable})
    if lines:
        shown = "\n  ".join(lines)
        raise CacheMismatchError(
            f"The units of {parts.out} were made otherwise than asked for:\n  {shown}"
        )


def _refuse_other_crops(found: str, parts: Parts, crops: Path) -> None:
    if found != parts.plan.settings["crops"]:
        raise CacheMismatchError(
            f"The units of {parts.out} were made from other crops than {crops}: "
            "name them with --crops."
        )
