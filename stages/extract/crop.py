"""A data set and how to crop it -> the crop cache that this makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.digest import bytes_digest, file_digest, text_digest
from cache.errors import CacheDamagedError, Refused
from cache.fingerprint import canonical_json
from cache.parts import Parts, Plan
from cache.provenance import provenance
from cache.schema import SPLITS, Info, Manifest, shard_rows_for
from cache.writer import Content, publish, refuse_missing
from stages.datasets.sample import Dataset, Sample
from stages.extract.faces import USABLE, CropSettings, Status


@dataclass(frozen=True)
class CropWork:
    """A data set, how to crop it, and what that is called."""

    dataset: Dataset
    settings: CropSettings
    digests: tuple[str, ...]
    """Of each image's bytes; or, in a few words, why it cannot be read."""
    fingerprinted: dict[str, Any]
    """What decides the content of the crop cache."""

    def plan(self, store: str, unit_rows: int | None = None) -> Plan:
        size = self.settings.size
        return Plan(
            kind="crops",
            settings=self.fingerprinted,
            dtype="uint8",
            row_shape=(size, size, 3),
            rows=self.dataset.size,
            unit_rows=unit_rows or shard_rows_for(size * size * 3),
            store=store,
            classes=self.dataset.classes,
            info=Info(dataset=self.dataset.name),
        )

    def rows(self) -> list[dict[str, Any]]:
        """The sample table as it is known before the work."""
        return [
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
        ]


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


def rows_digest(rows: list[dict[str, Any]]) -> str:
    """Of a data set: everything in its sample table that decides a cache, and the files' bytes."""
    keys = ("id", "file", "label", "subject", "split", "stated_box")
    listed = [[row[key] for key in keys if key in row] for row in rows]
    return text_digest(canonical_json({"rows": listed}))


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
        Refused: not a single image can be used.
    """
    refuse_missing(parts)
    notes = list(parts.notes())
    status = np.array([s for note in notes for s in note["status"]], dtype=np.uint8)
    boxes = np.array([b for note in notes for b in note["box"]], dtype=np.int32)
    reasons = [r for note in notes for r in note["reason"]]
    counts = {s.name.lower(): int((status == s).sum()) for s in Status}
    if not np.isin(status, USABLE).any():
        parts.discard()
        raise Refused(f"None of the {len(status)} images can be used; first: {reasons[0]}.")
    table = parts.samples()
    if rows_digest(table) != parts.plan.settings["dataset"]["digest"]:
        raise CacheDamagedError(
            f"The sample table in {parts.scratch} is not that of the data set: it was changed or "
            "damaged. Delete that folder and run the crop or extract command again."
        )
    side = {"status": status, "box": boxes, **sample_columns(table, parts.plan.classes)}
    samples = (
        {**sample, "status": Status(int(s)).name.lower(), "reason": reason}
        for sample, s, reason in zip(table, status, reasons, strict=True)
    )
    info = parts.plan.info.model_copy(update={"images": counts})
    content = Content(side, samples, parts.plan.classes, info, provenance(started))
    rows = parts.plan.unit_rows
    return publish(parts, content, store=store, overwrite=overwrite, shard_rows=rows)


def sample_columns(samples: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    """label int16, split uint8, subject int32 (rank of the name; -1 where unknown), each (N,)."""
    ranks = {name: k for k, name in enumerate(sorted({s["subject"] for s in samples} - {""}))}
    codes = {name: k for k, name in enumerate(classes)}
    return {
        "label": np.array([codes[s["label"]] for s in samples], dtype=np.int16),
        "split": np.array([SPLITS.index(s["split"] or "train") for s in samples], dtype=np.uint8),
        "subject": np.array([ranks.get(s["subject"], -1) for s in samples], dtype=np.int32),
    }
