"""Stage one as a whole against its parts, each measured alone and shared out perfectly.

The floor is the core-seconds that `extract --plan` measures on one core (digest, decoding,
face, crop, root, both caches) with half of the images, doubled and divided by the cores.  On
neither side: Python, torch and the root's weights, which are loaded before; and the start of the
worker processes, which is measured by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from cache.parts import Parts
from pipeline import extraction, plan_rates
from pipeline.how import How, cores
from pipeline.params import DatasetParams, ExtractParams, Params
from pipeline.plan_rates import Rates
from stages.datasets import read
from stages.datasets.sample import Dataset, Sample, limited
from stages.extract.backbones import choose
from stages.extract.cropper import Cropper
from stages.extract.images import decode
from stages.extract.weights import Weights, load
from tests.bench.measuring import Bench
from tests.bench.pictures import pictures
from tests.making import crop_work, nothing

pytestmark = pytest.mark.bench


@dataclass(frozen=True)
class Took:
    seconds: float
    core_seconds: float
    """Of this process and its workers."""
    others: float
    """Core-seconds that other programs had meanwhile."""


@pytest.mark.parametrize(
    ("backbone", "count", "repeats"), [("mobilenet_v2", 640, 3), ("vgg16", 320, 3)]
)
def test_stage_one(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    count: int,
    repeats: int,
) -> None:
    if bench.quick and backbone == "vgg16":
        pytest.skip("takes a minute")
    count, repeats = (160, 2) if bench.quick else (count, repeats)
    folder, words = pictures(tmp_path / "pictures", count)
    params, half = (
        Params(
            dataset=DatasetParams(name="folder", root=folder, limit=limit),
            extract=ExtractParams(backbone=backbone, weights="random"),
        )
        for limit in (count, count // 2)
    )
    ready: list[Weights] = []
    for room in (extraction, plan_rates):
        monkeypatch.setattr(room, "load", lambda *_: ready.pop())
    tap = choose(backbone, None)
    parts, start, whole = list[Rates](), list[Took](), list[Took]()
    for k in range(repeats):
        # Calibrating random weights is a fixed cost, which those that people use do not have.
        ready += [replace(load(tap, "random", 0), needs_calibration=False) for _ in range(2)]
        parts.append(plan_rates.measure(half, device="cpu", download=False))
        start.append(_start_of_workers(tmp_path / f"start-{k}"))
        whole.append(_whole(params, tmp_path / f"whole-{k}"))
    bench.figures[f"stage one, {backbone}"] = {
        "images": words,
        "decode_s_an_image": _decoding(folder, count),
        "parts_s_an_image": [asdict(rates) for rates in parts],
        "start_of_workers": [asdict(took) for took in start],
        "whole_with_start": [asdict(took) for took in whole],
    }
    begun = statistics.median(took.seconds for took in start)
    others = statistics.median(took.others for took in whole)
    bench.add(
        f"stage one whole, {backbone}, {cores()} cores",
        [took.seconds - begun for took in whole],
        [count * _core_seconds(rates) / cores() for rates in parts],
        against="its parts shared out perfectly",
        equal=f"{count} {words}",
        aim=">= 0.90",
        note=f"without {begun:.1f} s that the workers take to start; other programs had "
        f"{others:.1f} core-seconds meanwhile",
    )


def _core_seconds(rates: Rates) -> float:
    """Of an image."""
    return rates.read + rates.crop + rates.usable * rates.root + rates.finish


def _whole(params: Params, out: Path) -> Took:
    """`extract`, the crops made beside."""
    clock = _Clock()
    extraction.extract(params, None, out / "latents", How(cores()))
    return clock.took()


def _start_of_workers(out: Path) -> Took:
    """Until all have made a detector and cropped pictures that take no time."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    samples = tuple(Sample(f"{k:03}", pixels, "x", "", "train") for k in range(64 * cores()))
    work = crop_work(Dataset("blank", ("x",), samples), size=8, upsample=0)
    parts = Parts(out, work.plan("zarr"))
    clock = _Clock()
    with Cropper(work, parts, workers=cores(), tick=nothing) as cropper:
        for _ in cropper.units(parts.plan.units):
            pass
    return clock.took()


def _decoding(folder: Path, count: int) -> float:
    """Seconds of a core for each image."""
    files = [s.image for s in limited(read("folder", folder), count).samples]
    data = [path.read_bytes() for path in files if isinstance(path, Path)]
    started = time.process_time()
    for one in data:
        decode(one)
    return (time.process_time() - started) / len(data)


class _Clock:
    """Started when it is made."""

    def __init__(self) -> None:
        self._begun, self._ours, self._all = time.perf_counter(), _ours(), _busy()

    def took(self) -> Took:
        seconds, busy = time.perf_counter() - self._begun, _busy() - self._all
        while multiprocessing.active_children():  # their time counts once they have ended
            time.sleep(0.01)
        ours = _ours() - self._ours
        return Took(seconds, ours, max(0.0, busy - ours))


def _ours() -> float:
    return sum(os.times()[:4])


def _busy() -> float:
    """Core-seconds that all programs have had since the machine was started."""
    times = psutil.cpu_times()
    idle: float = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - idle)
