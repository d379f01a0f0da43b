"""A data set and how to crop it -> the crop cache that this makes."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.digest import TextDigest, bytes_digest, file_digest
from cache.errors import CacheDamagedError, Refused
from cache.fingerprint import canonical_json
from cache.limits import refuse_classes
from cache.parts import Parts, Plan
from cache.provenance import provenance
from cache.schema import SPLITS, Info, Manifest, shard_rows_for
from cache.writer import Content, publish, refuse_missing
from stages.datasets.sample import Dataset, Sample
from stages.extract.faces import USABLE, CropSettings, Status
from stages.extract.notes import crop_note


@dataclass(frozen=True)
class CropWork:
    """A data set, how to crop it, and what that is called."""

    dataset: Dataset
    settings: CropSettings
    digests: tuple[str, ...]
    """Of each image's bytes; or, in a few words, why it cannot be read."""
    fingerprinted: dict[str, Any]
    """What decides the content of the crop cache."""
    options: dict[str, int | str] | None = None
    """What of the data set was asked for, beside its name: for readers."""

    def plan(self, store: str, unit_rows: int | None = None) -> Plan:
        size = self.settings.size
        refuse_classes(self.dataset.classes)
        return Plan(
            kind="crops",
            settings=self.fingerprinted,
            dtype="uint8",
            row_shape=(size, size, 3),
            rows=self.dataset.size,
            unit_rows=unit_rows or shard_rows_for(size * size * 3),
            store=store,
            classes=self.dataset.classes,
            info=Info(dataset=self.dataset.name, dataset_options=self.options),
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The sample table as it is known before the work."""
        return (
            {
                "row": row,
                "id": sample.id,
                "label": sample.label,
                "subject": sample.subject,
                "split": sample.split,
                "file": digest,
                **({"stated_box": sample.box} if self.settings.face_crop == "box" else {}),
            }
            for row, (sample, digest) in enumerate(
                zip(self.dataset.samples, self.digests, strict=True)
            )
        )


def prepare(
    dataset: Dataset, settings: CropSettings, tick: Callable[[int], None], threads: int = 4
) -> CropWork:
    """Read every image once for its digest: bytes decide a crop, not names or dates."""
    digests: list[str] = []
    blocks = [dataset.samples[k : k + 64] for k in range(0, dataset.size, 64)]
    with ThreadPoolExecutor(threads) as pool:  # blake3 and the disk both leave Python's lock
        for found in pool.map(_digests, blocks):
            digests += found
            tick(len(found))
    fingerprinted: dict[str, Any] = {
        "kind": "crops",
        "dataset": {
            "name": dataset.name,
            "rows": dataset.size,
            "classes": list(dataset.classes),
            "digest": "",
        },
        "crop": settings.fingerprinted(),
    }
    work = CropWork(dataset, settings, tuple(digests), fingerprinted)
    fingerprinted["dataset"]["digest"] = rows_digest(work.rows())
    return work


def rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """Of a data set: everything in its sample table that decides a cache, and the files' bytes."""
    found = _RowsDigest()
    for row in rows:
        found.add(row)
    return found.digest()


class _RowsDigest:
    """The digest of canonical_json({"rows": [...]}), of rows that are never all in memory."""

    _KEYS = ("id", "file", "label", "subject", "split", "stated_box")
    _START, _END = '{"rows":[', "]}"

    def __init__(self) -> None:
        self._text, self._between = TextDigest(), self._START
        self._held: list[list[Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._held.append([row[key] for key in self._KEYS if key in row])
        if len(self._held) == 1000:
            self._flush()

    def _flush(self) -> None:
        inside = canonical_json({"rows": self._held})[len(self._START) : -len(self._END)]
        self._text.add(self._between + inside)
        self._between = ","
        self._held.clear()

    def digest(self) -> str:
        """Of all that were added; to be asked once."""
        if self._held or self._between == self._START:
            self._flush()
        self._text.add(self._END)
        return self._text.digest()


def _digests(samples: Sequence[Sample]) -> list[str]:
    return [_digest(sample) for sample in samples]


def _digest(sample: Sample) -> str:
    if isinstance(sample.image, np.ndarray):
        shape = " ".join(map(str, sample.image.shape))
        return f"pixels {shape} {bytes_digest(sample.image.tobytes())}"
    if not sample.image.is_file():  # a pipe, say, would be waited for without end
        return "no such file"
    try:
        return file_digest(sample.image)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def publish_crops(parts: Parts, *, store: str, overwrite: bool, started: float) -> Manifest:
    """Make the crop cache of all its units.

    Raises:
        CacheUnfinishedError: units are missing.
        CacheDamagedError: a note or the sample table is not what was written.
        Refused: not a single image can be used.
    """
    refuse_missing(parts)
    status, boxes, reasons = _noted(parts)
    counts = {s.name.lower(): int((status == s).sum()) for s in Status}
    if not np.isin(status, USABLE).any():
        parts.discard()
        why = reasons.get(0, "")
        raise Refused(f"None of the {len(status)} images can be used; first: {why}.")
    columns = sample_columns(sample_table(parts), parts.plan.classes)
    side = {"status": status, "box": boxes, **columns}
    names = {int(s): s.name.lower() for s in Status}
    samples = (
        {**sample, "status": names[s], "reason": reasons.get(row, "")}
        for row, (sample, s) in enumerate(zip(sample_table(parts), status.tobytes(), strict=True))
    )
    info = parts.plan.info.model_copy(update={"images": counts})
    content = Content(side, samples, parts.plan.classes, info, provenance(started))
    rows = parts.plan.unit_rows
    return publish(parts, content, store=store, overwrite=overwrite, shard_rows=rows)


def _noted(parts: Parts) -> tuple[NDArray[np.uint8], NDArray[np.int32], dict[int, str]]:
    """What the units say of their rows: status (N,), box (N, 4), and reasons, of rows that have
    one."""
    rows = parts.plan.rows
    status, boxes = np.empty(rows, dtype=np.uint8), np.empty((rows, 4), dtype=np.int32)
    reasons: dict[int, str] = {}
    for unit in parts.plan.units:
        note, span = crop_note(parts, unit), parts.plan.rows_of(unit)
        status[span.start : span.stop] = note.status
        boxes[span.start : span.stop] = note.box
        said = zip(span, note.reason, strict=True)
        reasons.update((row, sys.intern(reason)) for row, reason in said if reason)
    return status, boxes, reasons


def sample_table(parts: Parts) -> Iterator[dict[str, Any]]:
    """The rows of the sample table as it is known before the work, one at a time.

    Raises:
        CacheDamagedError: it is not that of the data set; perhaps after the last row only.
    """
    said = parts.plan.settings.get("dataset")
    stated = said.get("digest") if isinstance(said, dict) else None
    classes, splits = {*parts.plan.classes}, (*SPLITS, "", None)
    found, count = _RowsDigest(), 0
    for sample in parts.samples():
        known = sample.get("label") in classes and sample.get("split") in splits
        if not known or not {"split", "subject"} <= sample.keys():
            break
        found.add(sample)
        count += 1
        yield sample
    if count != parts.plan.rows or found.digest() != stated:
        raise CacheDamagedError(
            f"The sample table in {parts.scratch} is not that of the data set: it was changed or "
            "damaged. Delete that folder and run the crop or extract command again."
        )


def sample_columns(samples: Iterable[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    """label int16, split uint8, subject int32 (rank of the name; -1 where unknown), each (N,)."""
    codes = {name: k for k, name in enumerate(classes)}
    label, split, subject = array("h"), array("B"), array("i")
    names: dict[str, int] = {}
    for sample in samples:
        label.append(codes[sample["label"]])
        split.append(SPLITS.index(sample["split"] or "train"))
        subject.append(names.setdefault(sample["subject"], len(names)))
    ranks = np.full(len(names), -1, dtype=np.int32)
    for rank, name in enumerate(sorted(names.keys() - {""})):
        ranks[names[name]] = rank
    return {
        "label": np.asarray(label, dtype=np.int16),
        "split": np.asarray(split, dtype=np.uint8),
        "subject": ranks[np.asarray(subject)],
    }
