"""verify --recompute: make some rows again from what they were made of, and compare.

Digests say that a cache is what was written; this says that what was written is what the
settings ask for.  It finds the wrong weights, the wrong crops and the wrong layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.care.verify import Recomputed, Report, Tick
from cache.errors import CacheDamagedError, CacheMismatchError
from cache.listing import read_provenance
from cache.printable import printable
from cache.provenance import versions
from cache.reader import Cache
from cache.schema import SAMPLES
from stages.datasets.sample import some

_TOLERANCE = 1e-5
"""Of a float32 latent; of one above 1, as much of its size."""
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Given:
    """What caches are made again from, as far as the user says."""

    crops: Path | None = None
    root: Path | None = None
    weights: str | None = None


def chosen(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` of `rows` rows (all, if there are no more), int64, rising."""
    picked = np.random.default_rng(seed).choice(rows, min(count, rows), replace=False)
    return np.sort(picked).astype(np.int64)


def recheck(report: Report, count: int, seed: int, given: Given, tick: Tick) -> None:
    """Add to `report`, of a cache without faults, what making `count` rows again shows; `tick`
    counts rows.

    Raises:
        Refused: crops, images or weights are not given, or are others.
    """
    path, manifest = report.path, report.manifest
    if report.faults or manifest is None or not isinstance(path, Path):
        report.notes.append("Nothing was made again: that is for a whole cache on a disk.")
        return
    rows = chosen(manifest.rows, count, seed)
    check = _latents if manifest.kind == "latents" else _crops
    with Cache(path) as cache:
        differing, largest = check(report, cache, path, rows, given, tick)
    report.recomputed = Recomputed(tuple(rows.tolist()), seed, largest, tuple(differing))


def _latents(
    report: Report, cache: Cache, path: Path, rows: NDArray[np.int64], given: Given, tick: Tick
) -> tuple[list[int], float]:
    """Rows that differ by more than rounding, and the largest difference."""
    from pipeline.caches.recompute import LatentsAgain
    from pipeline.image_root import crop_rows
    from stages.extract.forward import GROUP

    differing: list[int] = []
    largest = 0.0
    with LatentsAgain(path, cache.manifest, given.crops, given.weights) as again:
        places = crop_rows(cache, again.crops)[rows]
        scale = again.root.scale
        deviation = None if scale is None else scale.cpu().numpy().astype(np.float64)
        for start in range(0, len(rows), GROUP):
            few = slice(start, start + GROUP)
            crops = [again.crops.bulk_rows(int(p), int(p) + 1) for p in places[few]]
            pixels = np.concatenate(crops)
            # As many as when they were made: another number is added up in another order.
            made = again.latents(np.resize(pixels, (GROUP, *pixels.shape[1:])))[: len(pixels)]
            stored = np.concatenate([cache.bulk_rows(int(r), int(r) + 1) for r in rows[few]])
            off = np.abs(made.astype(np.float64) - stored.astype(np.float64))
            off = np.nan_to_num(off, nan=_MOST, posinf=_MOST)  # JSON knows no infinity
            wrong = ~(off <= allowed(stored, deviation)).all(axis=1)
            differing += rows[few][wrong].tolist()
            largest = max(largest, float(off.max()))
            tick(len(pixels))
    what = (
        f"is not what {printable(cache.manifest.info.backbone)} with its weights gives for these "
        f"crops: off by up to {largest:g}, more than rounding{_other_versions(path, 'torch')}"
    )
    report.add_rows("column latents", what, np.array(differing, dtype=np.int64))
    return differing, largest


def allowed(
    stored: NDArray[np.generic], deviation: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """By how much a value may be off, float64 (k, D).

    1e-5; of values above 1 as much of their size.  Of half precision half a unit in the last place
    more.  Where a value of a random root hardly varies, calibration divides the rounding of the
    network by its small `deviation` (D,): there as much of the pre-activation, up to 0.01.
    """
    values = np.abs(stored.astype(np.float64))
    off = _TOLERANCE * np.maximum(1, values)
    if deviation is not None:
        off = np.minimum(off / np.minimum(1, deviation), np.maximum(off, 0.01))
    if stored.dtype == np.float16:
        off = off + np.spacing(np.abs(stored)).astype(np.float64) / 2
    return off


def _crops(
    report: Report, cache: Cache, path: Path, rows: NDArray[np.int64], given: Given, tick: Tick
) -> tuple[list[int], float]:
    """Rows whose pixels, status or box differ, and the largest difference of two pixels."""
    from pipeline.caches.recrop import CropsAgain

    samples, differing, largest = path / SAMPLES, [], 0.0
    with CropsAgain(path, cache.manifest, given.root) as again:
        again.refuse_other_columns()
        changed = again.changed(rows.tolist(), samples)
        if changed:
            raise CacheMismatchError(
                f"{len(changed)} of {len(rows)} images in {given.root} are not those that were "
                f"cropped, by their digests in {samples}: {some(changed)}. Name the folder with "
                "the images as they were, --root."
            )
        status, box = cache.side("status"), cache.side("box")
        for row in rows.tolist():
            made, stored = again.crop(row, samples), cache.bulk_rows(row, row + 1)[0]
            off = float(np.abs(made.pixels.astype(np.int64) - stored).max())
            same = (int(made.status), list(made.box)) == (int(status[row]), box[row].tolist())
            if off or not same:
                differing.append(row)
            largest = max(largest, off)
            tick(1)
    what = (
        "is not what these settings cut out of the images: pixels off by up to "
        f"{largest:g}{_other_versions(path, 'pillow', 'dlib-bin', 'dlib')}"
    )
    report.add_rows("column crops", what, np.array(differing, dtype=np.int64))
    return differing, largest


def _other_versions(path: Path, *packages: str) -> str:
    """In words, if the cache was made with others than there are here."""
    try:
        made = read_provenance(path).get("versions")
    except CacheDamagedError:
        return ""
    now, then = versions(), made if isinstance(made, dict) else {}
    others = [
        f"{name} {printable(then[name])}, here {now.get(name, 'none')}"
        for name in packages
        if name in then and then[name] != now.get(name)
    ]
    return f"; it was made with {', '.join(others)}" if others else ""
