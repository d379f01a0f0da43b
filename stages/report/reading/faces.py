"""Whose faces a report may show, and crops to show beside generated ones.

Where a run says its caches lie is a stranger's word: it is only opened as a cache, whose bytes
are all checked, and shown only if it is a cache of the data set that the run is of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import Refused
from cache.fingerprint import nested
from cache.reader import Cache
from cache.schema import Manifest, read_manifest
from stages import datasets
from stages.report.reading.runs import Run

_DRAWN = "drawn"
_MOST_ROWS = 24
_LARGEST = 512
"""Pixels of a side; larger crops are not shown."""


@dataclass(frozen=True)
class Crops:
    images: NDArray[np.uint8]
    """(r, S, S, 3) RGB."""
    names: tuple[str, ...]
    """(r,) classes."""
    proven: bool
    """The run's latents were made of this very cache; else it is of the same data set, as far as
    can be told here."""


def of_people(dataset: str) -> bool:
    """Whether its images may show somebody: all data sets of faces but the drawn one, and all
    that are not ours."""
    if dataset == _DRAWN:
        return False
    return dataset not in datasets.NAMES or bool(datasets.module(dataset).ABOUT.faces)


def real_crops(run: Run, rows: NDArray[np.int64], place: Path | None) -> Crops:
    """The crops in these rows of the run's crop cache: `place`, or where the run says.

    Raises:
        Refused: there is none, it is damaged, or it is another data set's.
    """
    said = run.about.crops if run.about else None
    if place is None and not said:
        raise Refused("the run does not say where its crops are: name them with --crops DIR")
    path = place if place is not None else Path(str(said))
    try:
        with Cache(path) as cache:
            cache.expect("crops")
            manifest = cache.manifest
            _refuse_other_data(run, manifest, path)
            proven = _proven(run, manifest, path)
            _refuse_other_rows(manifest, rows, path)
            images = [cache.bulk_rows(row, row + 1)[0] for row in rows.tolist()]
            labels = cache.side("label")[rows]
    except (OSError, ValueError) as error:  # a path that no file system takes, such as one with \0
        if isinstance(error, Refused):
            raise
        raise Refused(f"{path} cannot be read: {error}") from None
    names = tuple(manifest.classes[label] for label in labels.tolist())
    return Crops(np.stack(images), names, proven)


def _refuse_other_data(run: Run, manifest: Manifest, path: Path) -> None:
    """By what decides the cache's content, which its fingerprint is of."""
    name = nested(manifest.settings, "dataset").get("name")
    if not name == manifest.info.dataset == run.dataset:
        raise Refused(f"{path} holds crops of {manifest.info.dataset}, the run is of {run.dataset}")
    strange = sorted(set(run.class_order) - set(manifest.classes))
    if strange:
        raise Refused(f"{path} has no class {strange[0]}, which the run has learnt")


def _proven(run: Run, crops: Manifest, path: Path) -> bool:
    """By the latent cache, if it is still where the run found it: its fingerprint is the run's,
    and contains that of the crops.

    Raises:
        Refused: it contains another.
    """
    if run.about is None or not run.about.cache:
        return False
    try:
        latents = read_manifest(Path(run.about.cache))
    except (Refused, OSError, ValueError):
        return False
    if latents.fingerprint != run.cache_fingerprint:
        return False
    if latents.settings.get("crops") != crops.fingerprint:
        raise Refused(
            f"{path} has the fingerprint {crops.fingerprint}, the run's latents were made of "
            f"{latents.settings.get('crops')}"
        )
    return True


def _refuse_other_rows(manifest: Manifest, rows: NDArray[np.int64], path: Path) -> None:
    column = manifest.columns["crops"]
    high, wide, *rest = column.shape[1:]
    if column.dtype != "uint8" or rest != [3] or not 1 <= high == wide <= _LARGEST:
        raise Refused(f"{path} holds crops of {column.dtype} {column.shape[1:]}, not shown")
    if not len(rows) or len(rows) > _MOST_ROWS or not 0 <= rows.min() <= rows.max() < manifest.rows:
        raise Refused(f"the run names rows that {path} does not have")
