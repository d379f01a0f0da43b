"""Wire the second half of stage one: crops -> latent cache, making the crops beside it.

Everything that can be refused is refused before anything is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.errors import CacheExistsError, CacheMismatchError, CacheUnfinishedError, Refused
from cache.parts import Parts, unfinished
from cache.reader import Cache
from cache.root import Root
from cache.schema import MANIFEST, Manifest, read_manifest, scratch_folders
from cache.writer import clear_leftovers, refuse_missing, refuse_taken
from pipeline import crops as crop_room
from pipeline import device as devices
from pipeline import summaries
from pipeline.caches import root as cache_root
from pipeline.caches.match import compare_root, said
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
from stages.extract.unit import RootWanted
from stages.extract.weights import Weights, check_names, load


def extract(
    params: Params, crops: Path | None, out: Path | None, how: How, root: Root | None = None
) -> Path:
    """Make the latent cache `out` (or this run's share), and the crops where they are missing;
    without `out` in the root, or use the one that the root has.  Returns where it is."""
    cache_root.refuse_nowhere(root, out, retry_failed=how.retry_failed)
    if crops is not None and out is not None and crops.resolve() == out.resolve():
        raise Refused(f"--out and --crops are the same folder, {out}: choose another --out.")
    asked = params.extract
    tap = choose(asked.backbone, asked.layer)
    check_names(tap, asked.weights)
    settings = RootSettings(tap, asked.activation, asked.normalize, asked.dtype)
    found, work, before = _crops(params, crops, out, how, root)
    are, size = _crops_to_be(work) if work is not None else _crops_there(found)
    of_root = cost(tap, size)
    weights = load(tap, asked.weights, asked.weights_seed)
    plan = latent_plan(are, settings, weights, of_root, params.store)
    place = cache_root.place(root, out, plan)
    parts = Parts(place, plan)
    overwrite = how.overwrite or (how.retry_failed and _retried(place, parts, before))
    done = cache_root.ready(root, out, plan, overwrite=overwrite)
    if done is not None:
        return done
    refuse_taken(place, "latents", overwrite=overwrite)
    note_others(parts)
    if work is not None:
        where = "beside the latents" if found.parent == place.parent else "there"
        say(f"There are no crops at {found} yet: they are made {where}.")
    named = asked.weights, asked.weights_seed
    run = _Run(params.store, found, how, work, parts, settings, weights, overwrite, named)
    try:
        run.go()
    except Refused:
        if root is None or overwrite or not run.overtaken():
            raise
        say("Another run has finished a part of this meanwhile: it is used.")
        return extract(params, crops, out, how, root)
    if how.shard is None:
        if work is not None:  # crops that were there may be nobody else's business
            cache_root.share(root, found)
        cache_root.share(root, place)
    return place


def _crops(
    params: Params, crops: Path | None, out: Path | None, how: How, root: Root | None
) -> tuple[Path, CropWork | None, str | None]:
    """Where the crops are or will be; what makes them, or None if they are there; and then
    their fingerprint as it was before --retry-failed.

    Raises:
        CacheMismatchError: those that are there are not what was asked for.
    """
    beside = None if out is None else out.parent / "crops"
    if crops is None and (root is None or (beside is not None and _is_there(beside))):
        crops = beside
    if crops is not None and _is_there(crops):
        before = read_manifest(crops).fingerprint
        crop_room.check(params, crops, how)
        return crops, None, before
    work = crop_room.prepare_crops(params, download=how.download)
    plan = work.plan(params.store)
    found = cache_root.ready(root, crops, plan, overwrite=False)
    if found is not None:
        return found, None, plan.fingerprint
    return cache_root.place(root, crops, plan), work, None


def _is_there(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


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
    named: tuple[str, int]
    """The weights and the seed as they were asked for."""

    def overtaken(self) -> bool:
        """What was to be made is finished, which it was not when this run began."""
        made = cache_root.holds(self.parts.out, self.parts.plan)
        work = self.work
        return made or (work is not None and cache_root.holds(self.crops, work.plan(self.store)))

    def go(self) -> None:
        started = time.time()
        if self.how.dask is not None:
            self._on_dask(started)
            return
        units = self.how.units(self.parts)
        todo = self.parts.todo(units)
        published: list[Manifest] = []

        def after_crops() -> None:
            # Half of it is waiting for the disk, so that it costs the root next to nothing.
            if self.work is not None and self.how.shard is None:
                published.append(self._publish_crops(self.work, started))

        with (
            bars() as shown,
            tidy(self.parts, self.how),
            self._source(shown, units) as (source, missing),
        ):
            tick = bar(shown, f"extract {self.settings.tap.name}", self.parts, units, todo)
            devices.keep_freed_memory()
            extractor = Extractor(
                self.parts,
                self.settings,
                self.weights,
                device=self.how.device,
                tick=tick,
                batch_size=self.how.batch_size,
            )
            extractor.run(source, sorted({*todo, *missing}), set(todo), after_crops)
        if self.how.shard is not None:
            summaries.stripe_done(self.parts, self.how.shard, extractor.made)
            return
        self._finish(extractor.made, started, published)

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

    def _on_dask(self, started: float) -> None:
        from pipeline.cluster.extraction import finished_by_another, make_latents

        crops = self.crops if self.work is None else Parts(self.crops, self.work.plan(self.store))
        weights, seed = self.named
        if self.weights.fingerprinted["kind"] == "file":
            weights = str(Path(weights).absolute())
        root = RootWanted(self.settings, weights, seed, self.how.batch_size)
        try:
            made = make_latents(self.work, crops, self.parts, root, self.how)
            published = [] if self.work is None else [self._publish_crops(self.work, started)]
            self._finish(made, started, published)
        except (CacheExistsError, CacheUnfinishedError):
            begun = [crops] if isinstance(crops, Parts) else []
            if self.overwrite or not finished_by_another(self.parts, *begun):
                raise
            summaries.nothing_to_do(self.parts.out)

    def _publish_crops(self, work: CropWork, started: float) -> Manifest:
        parts = Parts(self.crops, work.plan(self.store))
        return publish_crops(parts, store=self.store, overwrite=False, started=started)

    def _finish(self, made: int, started: float, crops: Sequence[Manifest]) -> None:
        """`made`: latents; `crops`: of the crop cache, if this run has made it."""
        for manifest in crops:
            summaries.finished(self.crops, manifest, manifest.rows, None)
        with Cache(self.crops) as cache:
            manifest = publish_latents(
                self.parts, cache, store=self.store, overwrite=self.overwrite, started=started
            )
        summaries.finished(self.parts.out, manifest, made, time.time() - started)


def finalize(
    params: Params,
    crops: Path | None,
    out: Path,
    store: str | None,
    root: Root | None = None,
    *,
    overwrite: bool,
) -> None:
    """Make the latent cache of the units that --shard runs have made, and the crop cache
    where they have made that too; reads no image."""
    if summaries.finished_already(out, "latents"):
        cache_root.share(root, out)
        return
    started = time.time()
    parts = unfinished(out, "latents")
    _refuse_otherwise(params, parts)
    refuse_missing(parts)
    crops = crops or _crops_of(parts, root)
    store = store or parts.plan.store
    if not (crops / MANIFEST).is_file():
        _refuse_other_crops(unfinished(crops, "crops").plan.fingerprint, parts, crops)
        crop_room.finalize(params, crops, store, root, overwrite=False)
    with Cache(crops) as cache:
        _refuse_other_crops(cache.manifest.fingerprint, parts, crops)
        manifest = publish_latents(parts, cache, store=store, overwrite=overwrite, started=started)
    clear_leftovers(crops, cache.manifest.fingerprint)
    summaries.finished(out, manifest, manifest.rows, None)
    cache_root.share(root, out)


def _crops_of(parts: Parts, root: Root | None) -> Path:
    """Where jobs that were given no --crops have them: beside the latents, or else in the root."""
    beside = parts.out.parent / "crops"
    if root is None or _is_there(beside) or scratch_folders(beside):
        return beside
    return root.crops(parts.plan.info.dataset, parts.plan.settings["crops"])


def _refuse_otherwise(params: Params, parts: Parts) -> None:
    """What was said of the root must be what the units were made with."""
    lines = compare_root(said(params), parts.plan.settings).differing
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
