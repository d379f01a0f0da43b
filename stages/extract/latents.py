"""Run a frozen root once over the crops: crops -> latent cache.

While the root works on one unit, the next is being read or cropped, and the
one before is being written.  The passes of the next are begun before the last
ones of a unit are done, so that no thread waits in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.digest import bytes_digest, row_digests
from cache.errors import CacheDamagedError, CacheMismatchError, Refused
from cache.parts import Parts, Plan
from cache.provenance import provenance
from cache.reader import Cache
from cache.schema import SPLITS, Info, Manifest
from cache.writer import Content, publish, refuse_missing
from stages.extract.backbones import Activation, Cost, Normalize, Tap, value_range
from stages.extract.calibrate import CALIBRATION_ROWS, calibrate, stored_calibration
from stages.extract.forward import Forward
from stages.extract.notes import LatentNote, latent_note
from stages.extract.overlap import Behind, prefetch
from stages.extract.source import CropSource, CropUnit, usable_rows
from stages.extract.weights import Weights, make_root

Tick = Callable[[int], None]
Rows = NDArray[Any]

VERSION = 2
"""Part of the fingerprint: raise it when the same crop and weights give another latent."""
ALIKE = (1, VERSION)
"""Versions whose latents are these but for the last bits (1e-5)."""


@dataclass(frozen=True)
class RootSettings:
    """What decides a latent, beside its crop and the weights."""

    tap: Tap
    activation: Activation = "sigmoid"
    normalize: Normalize = "none"
    """imagenet: subtract ImageNet's mean and divide by its deviation (the LGR code does not)."""
    dtype: Literal["float32", "float16"] = "float32"


@dataclass(frozen=True)
class CropsAre:
    """What must be known of the crops before the first of them is made."""

    fingerprint: str
    rows: int
    unit_rows: int
    dataset: str
    classes: tuple[str, ...]


def latent_settings(crops: str, settings: RootSettings, weights: Weights) -> dict[str, Any]:
    """What decides the content of the latent cache; `crops` is the crop cache's fingerprint."""
    root = {
        "backbone": settings.tap.name,
        "layer": settings.tap.layer,
        "weights": weights.fingerprinted,
        "activation": settings.activation,
        "normalize": settings.normalize,
        "version": VERSION,
    }
    if weights.needs_calibration:
        root["calibration_rows"] = CALIBRATION_ROWS
    return {"kind": "latents", "crops": crops, "root": root, "dtype": settings.dtype}


def latent_plan(
    crops: CropsAre, settings: RootSettings, weights: Weights, cost: Cost, store: str
) -> Plan:
    """`cost`: the root's, of these crops."""
    return Plan(
        kind="latents",
        settings=latent_settings(crops.fingerprint, settings, weights),
        dtype=settings.dtype,
        row_shape=(cost.dim,),
        rows=crops.rows,
        unit_rows=crops.unit_rows,
        store=store,
        classes=crops.classes,
        info=Info(
            dataset=crops.dataset,
            backbone=settings.tap.name,
            weights=weights.words,
            root_macs=cost.macs,
            pretrained=not weights.needs_calibration,
            trained_on=weights.trained_on,
            value_range=value_range(settings.tap, settings.activation),
        ),
    )


class Extractor:
    """Makes the units of a latent cache."""

    def __init__(
        self,
        parts: Parts,
        settings: RootSettings,
        weights: Weights,
        *,
        device: str,
        tick: Tick,
        batch_size: int = 256,
    ) -> None:
        """`batch_size`: crops that are on a GPU at a time."""
        self.parts = parts
        self._settings, self._device, self._tick = settings, device, tick
        self._forward = Forward(device, batch_size)
        self._needs_calibration = weights.needs_calibration
        self._root = make_root(settings.tap, weights, settings.activation, settings.normalize)
        self._root.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.made = 0
        """Latents made by this run."""

    def run(
        self,
        source: CropSource,
        units: Sequence[int],
        todo: Collection[int],
        after_crops: Callable[[], None] = lambda: None,
    ) -> None:
        """Go through the crops of `units`; make the latents of those that are in `todo`.

        `after_crops` is called once all crops are there, in another thread, while the root is
        still at work on the last of them.

        Raises:
            Whatever `after_crops` raises.
            Refused: weights that give NaN or infinity, too few training images
                to calibrate random ones.
        """
        self.parts.start()
        if todo:
            self.calibrate(source)
        ahead = self._forward.units(self.parts.plan.unit_rows)
        with (
            Behind(ahead) as behind,
            closing(prefetch(_then(source.units(units), after_crops), source.stop)) as ready,
            self._forward.given_up(),
        ):
            for unit in ready:
                if unit.index in todo:
                    behind.do(self._finish, unit, self._begin(unit))

    def _finish(self, unit: CropUnit, passes: Iterator[Tensor]) -> None:
        rows, note = self._made(unit, passes)
        self.parts.write(unit.index, rows, note)

    def calibrate(self, source: CropSource) -> None:
        """A random root by its first training crops, once for all who make these parts.

        Raises:
            Refused: there are too few of them.
        """
        if self._needs_calibration:
            calibrate(self._root, source, self.parts, self._forward, self._device)

    def unit(self, unit: CropUnit) -> tuple[Rows, dict[str, Any]]:
        """The rows (k, D) of a unit as they are stored, and its note.

        Raises:
            Refused: NaN or infinity.
        """
        return self._made(unit, self._begin(unit))

    def _begin(self, unit: CropUnit) -> Iterator[Tensor]:
        """Its passes, on the way."""
        return self._forward(self._root, torch.from_numpy(unit.pixels[unit.usable]))

    def _made(self, unit: CropUnit, passes: Iterator[Tensor]) -> tuple[Rows, dict[str, Any]]:
        made = [torch.empty(0, *self.parts.plan.row_shape)]
        for part in passes:
            made.append(part)
            self._tick(len(part))
        self._tick(int((~unit.usable).sum()))
        rows, note = self._checked(torch.cat(made).numpy())
        note["crops"] = _crops_digest(row_digests(unit.pixels[unit.usable]))
        self.made += len(rows)
        return rows, note

    def _checked(self, latents: NDArray[np.float32]) -> tuple[Rows, dict[str, Any]]:
        """The rows as they are stored, and the unit's note."""
        dtype = self._settings.dtype
        note = {"device": self._device, "low": None, "high": None}
        if not len(latents):
            return latents.astype(dtype), note
        low, high = float(latents.min()), float(latents.max())
        limit = float(np.finfo(dtype).max)
        if not (np.isfinite(latents).all() and -limit <= low and high <= limit):
            raise Refused(
                f"The root gives values that {dtype} cannot hold (NaN, infinity or above "
                f"{limit:g}): are the weights of {self._settings.tap.name} damaged?"
            )
        return latents.astype(dtype), {**note, "low": low, "high": high}


def _then(units: Iterator[CropUnit], call: Callable[[], None]) -> Iterator[CropUnit]:
    yield from units
    call()


def publish_latents(
    parts: Parts, crops: Cache, *, store: str, overwrite: bool, started: float
) -> Manifest:
    """Make the latent cache of all its units; `crops` is the finished crop cache.

    Column `row` leads from a latent to its crop.

    Raises:
        CacheUnfinishedError: units are missing.
        CacheMismatchError: they were made from other crops.
    """
    refuse_missing(parts)
    rows = usable_rows(crops)
    notes = _aligned_notes(parts, crops, rows)
    train = crops.side("split")[rows] == SPLITS.index("train")
    info = parts.plan.info.model_copy(
        update={
            "images": crops.manifest.info.images,
            "crops": crops.manifest.settings,
            "dataset_options": crops.manifest.info.dataset_options,
            "observed_range": (
                min(n.low for n in notes if n.low is not None),
                max(n.high for n in notes if n.high is not None),
            ),
            "calibration": stored_calibration(parts, int(train.sum())),
        }
    )
    side = {name: crops.side(name)[rows] for name in ("label", "split", "subject")}
    side["row"] = rows.astype(np.int32)
    samples = sample_lines(crops.lines(), rows)
    made = {**provenance(started), "devices": sorted({n.device for n in notes})}
    content = Content(side, samples, parts.plan.classes, info, made)
    return publish(parts, content, store=store, overwrite=overwrite)


def sample_lines(
    crops: Iterable[dict[str, Any]], rows: NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    """The sample table of latents; `crops`: that of the crop cache, `rows`: of each latent, its row
    there, ascending.

    Raises:
        CacheDamagedError: a line of the crop cache does not state what is needed.
    """
    row = 0
    for crop, line in enumerate(crops):
        if row == len(rows) or crop != rows[row]:
            continue
        try:
            said = {k: line[k] for k in ("id", "label", "subject", "split", "status")}
        except KeyError as error:
            raise CacheDamagedError(
                f"The sample table of the crops states no {error.args[0]} of row {crop}."
            ) from None
        yield {"row": row, "crop": crop} | said
        row += 1


def _aligned_notes(parts: Parts, crops: Cache, rows: NDArray[np.int64]) -> list[LatentNote]:
    """The note of each unit.  Latent by latent the crops of the cache must be those that the root
    has seen, even if jobs ran on machines whose detectors or decoders differ."""
    plan, of = parts.plan, crops.manifest
    if (plan.rows, plan.classes) != (of.rows, of.classes) or not len(rows):
        raise CacheMismatchError(
            f"{parts.scratch} holds latents of {plan.rows} crops of {len(plan.classes)} classes, "
            f"{crops.path} {of.rows} of {len(of.classes)}, {len(rows)} to be used: other crops."
        )
    digests = crops.side("digest")
    notes = []
    for unit in parts.plan.units:
        span = parts.plan.rows_of(unit)
        kept = rows[slice(*np.searchsorted(rows, (span.start, span.stop)))]
        notes.append(latent_note(parts, unit, len(kept)))
        if notes[-1].crops != _crops_digest(digests[kept]):
            raise CacheMismatchError(
                f"Unit {unit} of {parts.out} was made from other crops than {crops.path} holds: "
                "jobs with other versions of dlib or Pillow? "
                f"Delete {parts.scratch} and make the latents from the finished crops."
            )
    return notes


def _crops_digest(digests: NDArray[np.uint8]) -> str:
    """Of the digests (k, 32) of the crops of a unit."""
    return bytes_digest(digests.tobytes())


def crops_are(cache: Cache) -> CropsAre:
    """Of a finished crop cache.  Raises CacheMismatchError: it is none."""
    cache.expect("crops")
    manifest = cache.manifest
    return CropsAre(
        manifest.fingerprint,
        manifest.rows,
        manifest.shard_rows,
        manifest.info.dataset,
        manifest.classes,
    )
