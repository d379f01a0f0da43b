"""Wire the first half of stage one: settings -> data set -> crop cache.

Everything that can be refused is refused before anything is made.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from cache.errors import CacheExistsError, CacheMismatchError, CacheUnfinishedError, Refused
from cache.fingerprint import Settings, differences
from cache.parts import Parts, unfinished
from cache.reader import Cache
from cache.root import Root
from cache.schema import Info
from cache.writer import clear_leftovers, refuse_taken
from pipeline import summaries
from pipeline.caches import root as cache_root
from pipeline.caches.match import compare_crops, said
from pipeline.console import bars, progress, say
from pipeline.how import How, bar, note_others, tidy
from pipeline.params import Params
from stages import datasets
from stages.datasets.sample import Dataset, limited
from stages.extract.crop import CropWork, prepare, publish_crops
from stages.extract.cropper import Cropper
from stages.extract.faces import CropSettings


def read_dataset(params: Params, *, download: bool = False) -> Dataset:
    """The data set that the settings name, and a word on what is odd about it."""
    asked = params.dataset
    if asked.root is None:
        raise Refused("Say where the images are: --root DIR (and --dataset NAME).")
    given = asked.options() | ({"download": True} if download else {})
    dataset = datasets.read(asked.name, asked.root, **given)
    if asked.limit is not None:
        dataset = limited(dataset, asked.limit)
    for note in dataset.notes:
        say(f"Note: {note}.")
    return dataset


def crop_settings(params: Params) -> CropSettings:
    """As asked for; what was left open is the data set's own."""
    about = datasets.module(params.dataset.name).ABOUT
    asked = params.crop
    return CropSettings(
        margin=asked.margin,
        size=asked.size or about.size,
        upsample=asked.upsample,
        face_crop=asked.face_crop or ("dlib" if about.faces else "off"),
        on_missing=asked.on_missing,
        smallest_face=asked.smallest_face,
    )


def prepare_crops(params: Params, *, download: bool = False) -> CropWork:
    """The data set, every image of it read once for its digest."""
    dataset = read_dataset(params, download=download)
    if params.crop.face_crop == "box" and not any(s.box for s in dataset.samples):
        raise Refused(f"The data set {dataset.name} states no face boxes for --face-crop box.")
    with progress("read", dataset.size, "images") as tick:
        work = prepare(dataset, crop_settings(params), tick)
    limit = {} if params.dataset.limit is None else {"limit": params.dataset.limit}
    return replace(work, options=params.dataset.options() | limit)


def crop(params: Params, out: Path | None, how: How, root: Root | None = None) -> Path:
    """Make the crop cache `out` (or its place in the root), or this run's share of it; or use
    the one that the root has.  Returns where it is."""
    cache_root.refuse_nowhere(root, out, retry_failed=how.retry_failed)
    work = prepare_crops(params, download=how.download)
    plan = work.plan(params.store)
    place = cache_root.place(root, out, plan)
    if how.retry_failed:
        retry(work, place, how)
    else:
        done = cache_root.ready(root, out, plan, overwrite=how.overwrite)
        if done is not None:
            return done
        refuse_taken(place, "crops", overwrite=how.overwrite)
        try:
            _make(work, params.store, place, how)
        except Refused:
            if root is None or how.overwrite or not cache_root.holds(place, plan):
                raise
            say("Another run has finished this meanwhile: it is used.")
    if how.shard is None:
        cache_root.share(root, place)
    return place


def _make(work: CropWork, store: str, out: Path, how: How, again: Cache | None = None) -> None:
    started = time.time()
    parts = Parts(out, work.plan(store))
    note_others(parts)
    if how.dask is not None and again is None:  # what is cropped again is little
        _make_on_dask(work, store, parts, how, started)
        return
    units = how.units(parts)
    todo = parts.todo(units)
    with bars() as shown, tidy(parts, how):
        tick = bar(shown, "crop", parts, units, todo)
        with Cropper(work, parts, workers=how.workers, tick=tick, again=again) as cropper:
            for _ in cropper.units(todo):
                pass
    if how.shard is not None:
        summaries.stripe_done(parts, how.shard, cropper.made)
        return
    overwrite = how.overwrite or again is not None
    manifest = publish_crops(parts, store=store, overwrite=overwrite, started=started)
    summaries.finished(out, manifest, cropper.made, time.time() - started)


def _make_on_dask(work: CropWork, store: str, parts: Parts, how: How, started: float) -> None:
    from pipeline.cluster.extraction import finished_by_another, make_crops

    try:
        made = make_crops(work, parts, how)
        manifest = publish_crops(parts, store=store, overwrite=how.overwrite, started=started)
    except (CacheExistsError, CacheUnfinishedError):
        if how.overwrite or not finished_by_another(parts):
            raise
        summaries.nothing_to_do(parts.out)
        return
    summaries.finished(parts.out, manifest, made, time.time() - started)


def retry(work: CropWork, out: Path, how: How) -> None:
    """Crop again what failed in the finished cache `out`.

    Raises:
        CacheMismatchError: more has changed than the files that failed.
    """
    with Cache(out) as old:
        old.expect("crops")
        failed = old.manifest.info.images["failed"]
        if work.fingerprinted == old.manifest.settings:
            say(
                f"{failed} images of {out} failed, and their files are unchanged: nothing to retry."
                if failed
                else f"No image of {out} failed: nothing to retry."
            )
            return
        _refuse_other_changes(work, old)
        _make(work, old.manifest.store, out, how, again=old)


def _refuse_other_changes(work: CropWork, old: Cache) -> None:
    wanted, found = dict(work.fingerprinted), dict(old.manifest.settings)
    wanted["dataset"] = found["dataset"] = ""
    lines = differences(wanted, found)
    if old.manifest.rows != work.dataset.size:
        lines.append(f"images: {work.dataset.size} now, {old.manifest.rows} in the cache")
    for row, sample, digest in zip(old.lines(), work.dataset.samples, work.digests, strict=False):
        now = (sample.id, sample.label, sample.subject, sample.split)
        was = (row["id"], row["label"], row["subject"], row["split"])
        if now != was or (row["status"] != "failed" and row["file"] != digest):
            lines.append(f"{row['id']}: changed, and had not failed")
    if lines:
        shown = "\n  ".join(lines[:8])
        raise CacheMismatchError(
            f"More has changed than what failed in {old.path}:\n  {shown}\n"
            "Make it anew with --overwrite, or under another --out."
        )


def check(params: Params, crops: Path, how: How) -> None:
    """Raise unless the crops at `crops` are what the settings ask for; retry what failed.

    Without the images (who only has a shared crop cache) the data set cannot be
    compared, but what was asked for the cropping can.
    """
    root = params.dataset.root
    if root is not None and root.is_dir():
        work = prepare_crops(params)
        if how.retry_failed:
            retry(work, crops, how)
        with Cache(crops) as cache:
            cache.expect("crops", work.fingerprinted)
        clear_leftovers(crops, cache.manifest.fingerprint)
        return
    if how.retry_failed:
        raise Refused("--retry-failed reads the images again: say where they are, --root DIR.")
    with Cache(crops) as cache:
        cache.expect("crops")
        refuse_otherwise(params, cache.manifest.settings, cache.manifest.info, crops)
    clear_leftovers(crops, cache.manifest.fingerprint)


def refuse_otherwise(params: Params, found: Settings, info: Info, crops: Path) -> None:
    """Raise CacheMismatchError if `found`, the settings of a crop cache, are not what was said.

    What was left open is not compared, and what only the images could tell neither.
    """
    lines = compare_crops(said(params), found, info.dataset_options).differing
    if lines:
        shown = "\n  ".join(lines)
        raise CacheMismatchError(f"{crops} was cropped otherwise than asked for:\n  {shown}")


def finalize(
    params: Params, out: Path, store: str | None, root: Root | None = None, *, overwrite: bool
) -> None:
    """Make the crop cache of the units that --shard runs have made; reads no image."""
    if summaries.finished_already(out, "crops"):
        cache_root.share(root, out)
        return
    started = time.time()
    parts = unfinished(out, "crops")
    refuse_otherwise(params, parts.plan.settings, parts.plan.info, out)
    store = store or parts.plan.store
    manifest = publish_crops(parts, store=store, overwrite=overwrite, started=started)
    summaries.finished(out, manifest, manifest.rows, None)
    cache_root.share(root, out)
