"""Crops again, from the images and the crop settings that the manifest names: for verify and
repair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cache.beside import scratch
from cache.errors import CacheMismatchError, Refused
from cache.fingerprint import differences
from cache.parts import Parts
from cache.printable import printable
from cache.schema import Manifest, read_lines
from cache.store import Array
from pipeline.console import progress, say
from pipeline.params import CropParams, DatasetParams
from stages import datasets
from stages.datasets.sample import Dataset, limited, some
from stages.extract.crop import CropWork, prepare, rows_digest
from stages.extract.cropper import Cropper
from stages.extract.faces import Crop, CropSettings, Status, Task, crop_image

_ELSE: tuple[dict[str, Any], ...] = ({}, {"images": "aligned"}, {"max_per_class": 0})
"""What may have been asked for of a data set whose crops do not say: between them these list
every image."""


class CropsAgain:
    """What a crop cache is made of.  Nothing is opened before it is asked for."""

    why_others = (
        "Other versions of Pillow or dlib decode, resize or find a face otherwise (lgr-pipe cache "
        "info says with which it was made): repair with those, or make it again (lgr-pipe crop "
        "--overwrite)."
    )

    def __init__(self, path: Path, manifest: Manifest, root: Path | None, workers: int = 1) -> None:
        """`path`: the crops, `manifest`: theirs; `root`: where the images are."""
        self._path, self._manifest, self._root = path, manifest, root
        self._workers = workers
        self._open = ExitStack()
        self._work: CropWork | None = None
        self._cropper: Cropper | None = None

    def __enter__(self) -> CropsAgain:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def settings(self) -> CropSettings:
        """Raises CacheMismatchError: this version cannot crop like that."""
        said = self._manifest.settings.get("crop")
        said = said if isinstance(said, dict) else {}
        names = {field.name for field in fields(CropSettings)}
        try:
            asked = CropParams.model_validate({k: v for k, v in said.items() if k in names})
            settings = CropSettings(**asked.model_dump(exclude_none=True))
        except (ValidationError, TypeError):
            raise CacheMismatchError(f"{self._path} does not say how it was cropped.") from None
        lines = differences(settings.fingerprinted(), said)
        if lines:
            shown = printable("; ".join(lines))
            raise CacheMismatchError(f"{self._path} cannot be cropped again here: {shown}.")
        return settings

    def refuse_other_columns(self) -> None:
        """Raise CacheMismatchError unless the cache has the columns of crops of this size."""
        side, columns = self.settings.size, self._manifest.columns
        found = columns[self._manifest.bulk]
        status, box = columns.get("status"), columns.get("box")
        shapes = [c.shape[1:] for c in (found, status, box) if c is not None]
        if shapes != [(side, side, 3), (), (4,)] or found.dtype != "uint8":
            raise CacheMismatchError(
                f"{self._path} does not hold crops of {side} x {side} pixels with their status "
                "and box, as its settings ask for."
            )

    def work(self, samples: Path) -> CropWork:
        """The images of all rows, and what is known of them.

        Raises:
            Refused: no images are given, or some of the sample table are not among them.
        """
        if self._work is None:
            self._work = self._of_table(read_lines(samples))
        return self._work

    def _of_table(self, table: list[dict[str, Any]]) -> CropWork:
        missing: list[str] = []
        for dataset in self._readings():
            by_id = {sample.id: sample for sample in dataset.samples}
            missing = [str(row.get("id")) for row in table if row.get("id") not in by_id]
            if not missing:
                found = tuple(by_id[str(row["id"])] for row in table)
                aligned = Dataset(dataset.name, self._manifest.classes, found)
                digests = tuple(str(row.get("file")) for row in table)
                return CropWork(aligned, self.settings, digests, self._manifest.settings)
        raise CacheMismatchError(
            f"{self._root} has no images of these names, of which there are crops in {self._path}: "
            f"{some(missing)}. Name the folder of the same data set with --root."
        )

    def _readings(self) -> Iterator[Dataset]:
        """The data set, as it may have been read: first as the manifest says, if it does."""
        if self._root is None:
            raise Refused(
                f"{self._path} holds crops, which are made again from the images: say where they "
                "are, --root DIR."
            )
        said = self._manifest.settings.get("dataset")
        name = str(said.get("name")) if isinstance(said, dict) else ""
        known = datasets.options(name).keys() - {"download"}
        refusal: Refused | None = None
        for asked in (self._asked(), *_ELSE):
            if asked.keys() <= known:
                try:
                    yield datasets.read(name, self._root, **asked)
                except Refused as error:
                    refusal = refusal or error
        if refusal is not None:
            raise refusal

    def _asked(self) -> dict[str, Any]:
        try:
            said = DatasetParams.model_validate(self._manifest.info.dataset_options or {})
        except ValidationError:
            return {}
        return said.options()

    def changed(self, rows: Iterable[int], samples: Path) -> list[str]:
        """Ids of those rows whose images are not the files, or the pixels, that were cropped."""
        work, rows = self.work(samples), list(rows)
        few = tuple(work.dataset.samples[row] for row in rows)
        now = prepare(replace(work.dataset, samples=few), self.settings, lambda _: None).digests
        return [s.id for s, row, d in zip(few, rows, now, strict=True) if d != work.digests[row]]

    def crop(self, row: int, samples: Path) -> Crop:
        """One row; its image must not have changed."""
        work = self.work(samples)
        sample = work.dataset.samples[row]
        return crop_image(Task(sample.image, work.digests[row], sample.box), self.settings)

    def rows(self, start: int, stop: int, samples: Path) -> Array:
        """Crops start..stop-1: those of one shard."""
        changed = self.changed(range(start, stop), samples)
        if changed:
            raise CacheMismatchError(
                f"Images in {self._root} are not those that were cropped, by their digests in the "
                f"sample table: {some(changed)}. Nothing was changed."
            )
        (pixels,) = self._units([start // self._manifest.shard_rows], samples)
        return pixels

    def side(self, name: str, samples: Path) -> Array:
        """Raises Refused: it is not known where such a column comes from."""
        if name == "status":
            codes = {status.name.lower(): int(status) for status in Status}
            said = [codes.get(str(row.get("status")), 0) for row in read_lines(samples)]
            return np.array(said, dtype=np.uint8)
        if name != "box":
            raise Refused(f"It is not known how column {name} of {self._path} was made.")
        return np.array(self._notes(samples, "box"), dtype=np.int32)

    def _notes(self, samples: Path, key: str) -> list[Any]:
        """Of all rows, which must be cropped for it: "status", "box" or "reason"."""
        say(f"All {self._manifest.rows:,} images are cropped again: nothing else tells the {key}.")
        shards = range(self._manifest.shards)
        with progress("crop", len(shards), "shards") as tick:
            for shard in shards:
                self._units([shard], samples)
                tick(1)
        assert self._cropper is not None
        return [value for note in self._cropper.parts.notes() for value in note[key]]

    def _units(self, units: list[int], samples: Path) -> list[NDArray[np.uint8]]:
        """The pixels of shards; each is cropped once, and kept on the disk until the end."""
        if self._cropper is None:
            work = self.work(samples)
            # Named like the folder that a repair works in: what a killed run leaves goes with it.
            folder = self._open.enter_context(scratch(self._path.resolve(), "repair"))
            plan = work.plan(self._manifest.store, self._manifest.shard_rows)
            cropper = Cropper(
                work, Parts(folder / "crops", plan), workers=self._workers, tick=lambda _: None
            )
            self._cropper = self._open.enter_context(cropper)
        return [unit.pixels for unit in self._cropper.units(units)]

    def table(self) -> Iterable[dict[str, Any]]:
        """Raises Refused: the data set is not, image by image, what was cropped."""
        self._work = self._of_digest()
        status, reason = (self._notes(Path(), key) for key in ("status", "reason"))
        return [
            {**sample, "status": Status(s).name.lower(), "reason": r}
            for sample, s, r in zip(self._work.rows(), status, reason, strict=True)
        ]

    def _of_digest(self) -> CropWork:
        """The data set that has the digest in the settings."""
        said = self._manifest.settings.get("dataset")
        wanted = said.get("digest") if isinstance(said, dict) else None
        for dataset in self._readings():
            few = limited(dataset, self._manifest.rows)
            if few.size == self._manifest.rows:
                with progress("read", few.size, "images") as tick:
                    work = prepare(few, self.settings, tick)
                if rows_digest(work.rows()) == wanted:
                    return replace(work, fingerprinted=self._manifest.settings)
        raise CacheMismatchError(
            f"The images in {self._root} are not, or are not split like, those of {self._path}: "
            "the sample table cannot be made again."
        )
