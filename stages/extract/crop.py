"""Run the detector over a data set: samples -> crop cache.

read ahead by worker processes (dlib holds Python's lock, so threads would
not help) -> crops in the order of the rows -> one shard after the other
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.digest import file_digest, text_digest
from cache.errors import Refused
from cache.fingerprint import canonical_json
from cache.provenance import provenance
from cache.reader import Cache
from cache.schema import SHARD_ROWS, SPLITS, Info, Manifest
from cache.store import Bulk
from cache.writer import CacheWriter
from stages.datasets.sample import Dataset, Sample
from stages.extract.faces import Crop, CropSettings, Status, crop_file

Tick = Callable[[int], None]
"""Called with the number of rows that were just done."""


def crop_settings(dataset: Dataset, settings: CropSettings) -> dict[str, Any]:
    """What decides the content of the crop cache: all files' bytes and labels, and the cropping.

    Raises:
        Refused: an image vanished since the folder was listed.
    """
    rows = []
    for sample in dataset.samples:
        try:
            digest = file_digest(sample.path)
        except OSError as error:
            raise Refused(f"{sample.path} cannot be read: {error.strerror}.") from None
        rows.append([sample.id, digest, sample.label, sample.subject, sample.split])
    return {
        "kind": "crops",
        "dataset": {
            "name": dataset.name,
            "rows": dataset.size,
            "classes": list(dataset.classes),
            "digest": text_digest(canonical_json({"rows": rows})),
        },
        "crop": settings.fingerprinted(),
    }


def make_crops(
    dataset: Dataset,
    settings: CropSettings,
    fingerprinted: dict[str, Any],
    out: Path,
    *,
    store: str,
    workers: int,
    overwrite: bool,
    tick: Tick,
    shard_rows: int = SHARD_ROWS,
) -> tuple[Manifest, int]:
    """Write the crop cache `out`; (its manifest, how many crops were made now).

    `fingerprinted` is what `crop_settings` gives for this data set and these
    settings: passed in, because it reads every image.  Unfinished work is taken
    up at the first shard that is missing.

    Raises:
        CacheExistsError: `out` is taken.
        Refused: not a single image can be decoded.
    """
    started = time.time()
    shape = (dataset.size, settings.size, settings.size, 3)
    bulk = Bulk("crops", "uint8", shape, shard_rows)
    writer = CacheWriter(out, "crops", fingerprinted, store, bulk, overwrite=overwrite)
    todo = writer.todo()
    rows = [row for shard in todo for row in bulk.rows_of(shard)]
    tick(dataset.size - len(rows))
    with ExitStack() as stack:
        paths = [dataset.samples[row].path for row in rows]
        crops = _crops(paths, settings, workers, stack)
        for shard in todo:
            _write_shard(writer, shard, len(bulk.rows_of(shard)), crops, tick)
    return _publish(writer, dataset, started), len(rows)


def _crops(
    paths: Sequence[Path], settings: CropSettings, workers: int, stack: ExitStack
) -> Iterator[Crop]:
    """The crops of `paths`, in their order, made by `workers` processes (1: by this one)."""
    crop = partial(crop_file, settings=settings)
    if workers <= 1 or len(paths) < 32:
        return map(crop, paths)
    pool = stack.enter_context(
        ProcessPoolExecutor(
            min(workers, len(paths)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_leave_with_parent,
        )
    )
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool.map(crop, paths, chunksize=8)


def _leave_with_parent() -> None:
    """A killed parent cannot stop its workers; each waits for its end in a thread."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _write_shard(
    writer: CacheWriter, shard: int, count: int, crops: Iterator[Crop], tick: Tick
) -> None:
    made = []
    for _ in range(count):
        made.append(next(crops))
        tick(1)
    note = {
        "status": [int(crop.status) for crop in made],
        "box": [list(crop.box) for crop in made],
        "reason": [crop.reason for crop in made],
    }
    writer.write(shard, np.stack([crop.pixels for crop in made]), note)


def _publish(writer: CacheWriter, dataset: Dataset, started: float) -> Manifest:
    notes = writer.notes()
    status = np.array([s for note in notes for s in note["status"]], dtype=np.uint8)
    boxes = np.array([b for note in notes for b in note["box"]], dtype=np.int32)
    reasons = [r for note in notes for r in note["reason"]]
    counts = {s.name.lower(): int((status == s).sum()) for s in Status}
    if counts["failed"] == dataset.size:
        writer.discard()
        raise Refused(f"None of the {dataset.size} images can be decoded; first: {reasons[0]}.")
    side = {"status": status, "box": boxes, **sample_columns(dataset.samples, dataset.classes)}
    samples = [
        {
            **_sample_row(row, sample),
            "status": Status(int(status[row])).name.lower(),
            "reason": reasons[row],
        }
        for row, sample in enumerate(dataset.samples)
    ]
    info = Info(dataset=dataset.name, images=counts)
    return writer.publish(side, samples, dataset.classes, info, provenance(started))


def sample_columns(samples: Sequence[Sample], classes: tuple[str, ...]) -> dict[str, Any]:
    """label int16, split uint8, subject int32 (rank of the name; -1 where unknown), each (N,)."""
    ranks = {name: k for k, name in enumerate(sorted({s.subject for s in samples} - {""}))}
    return {
        "label": np.array([classes.index(s.label) for s in samples], dtype=np.int16),
        "split": np.array([SPLITS.index(s.split or "train") for s in samples], dtype=np.uint8),
        "subject": np.array([ranks.get(s.subject, -1) for s in samples], dtype=np.int32),
    }


def _sample_row(row: int, sample: Sample) -> dict[str, Any]:
    return {
        "row": row,
        "id": sample.id,
        "label": sample.label,
        "subject": sample.subject,
        "split": sample.split,
    }


def usable_rows(crops: Cache) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of a crop cache that hold a picture, int64."""
    return np.flatnonzero(crops.side("status") != Status.FAILED)
