"""What grows with what: images, rows, tasks, classes; figures and a plot, bench/growth.png.

Predictions: extraction is linear in the images and its memory is bounded by units; an iteration
takes as long among a million rows as among a thousand, for it reads a batch; with more tasks the
replays are labelled and scored once for each head, with more classes the last layer grows.
"""

from __future__ import annotations

import statistics
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.datasets.sample import Dataset
from stages.train.view import TaskView
from tests.bench import made_up
from tests.bench.children import spent
from tests.bench.growth_plot import Panel, draw
from tests.bench.measuring import Bench, processor
from tests.making import make_crops, make_latents

pytestmark = pytest.mark.bench

_SIDE = 32
_ITERS = {"none": 200, "lr": 200, "lgr+d": 60}
"""A pass begins with a permutation (33 ms for 800,000 rows), which these must share out; over the
2000 iterations of a paper's task it is 0.02 ms each."""


@lru_cache(1)
def _images(rows: int) -> Dataset:
    return made_up.images(rows, _SIDE)


def _crop(out: Path, rows: int) -> None:
    make_crops(out, _images(rows), unit_rows=1024, size=_SIDE, face_crop="off")


def test_images(bench: Bench, tmp_path: Path) -> None:
    """Cropping and a small root (LeNet, 128-d), without start-up."""
    points: dict[str, dict[int, Any]] = {"crop": {}, "extract": {}}
    for rows in (1_000, 3_000) if bench.quick else (1_000, 10_000, 100_000):
        crops, out = tmp_path / f"crops {rows}", tmp_path / f"latents {rows}"
        steps = {
            "crop": spent(partial(_crop, crops, rows), first=partial(_images, rows)),
            "extract": spent(partial(make_latents, out, crops, "lenet")),
        }
        for name, found in steps.items():
            points[name][rows] = {"seconds": found.seconds, "mb": found.grown / 1e6}
    bench.figures["growth: images"] = points


def _seconds_a_step(name: str, case: dict[str, Any], iters: int, repeats: int) -> float:
    """Median seconds of an iteration at the last task, once there is something to replay."""
    rows = case.pop("rows", 4_000)
    data, scenario = made_up.latents(rows, **case)
    method = made_up.method(name, made_up.setup(data, scenario, iters=1))
    for task in scenario.tasks[:-1]:
        method.learn(TaskView(data, (task,)))
    method.setup = made_up.setup(data, scenario, iters=iters)  # type: ignore[attr-defined]
    last = TaskView(data, scenario.tasks[-1:])
    taken = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        method.learn(last)
        taken.append((time.perf_counter() - started) / iters)
    return statistics.median(taken[1:])


@pytest.mark.parametrize("name", ["none", "lr", "lgr+d"])
def test_training(bench: Bench, name: str) -> None:
    """128-d latents (512-d and more would not fit a million times), batch 128 (+ 128)."""
    full: dict[str, tuple[int, ...]] = {
        "rows": (1_000, 10_000, 100_000, 1_000_000),
        "tasks": (2, 5, 10, 25, 50),
        "classes": (2, 8, 40, 200),
    }
    iters, repeats = (10, 1) if bench.quick else (_ITERS[name], 3)
    with processor(1):
        _train(bench, name, full, iters, repeats)


def _train(
    bench: Bench, name: str, full: dict[str, tuple[int, ...]], iters: int, repeats: int
) -> None:
    for axis, values in full.items():
        found = bench.figures.setdefault(f"growth: {axis}", {}).setdefault(name, {})
        for value in values[:: len(values) - 1] if bench.quick else values:
            found[value] = 1e3 * _seconds_a_step(name, _case(axis, value), iters, repeats)


def _case(axis: str, value: int) -> dict[str, Any]:
    if axis == "rows":
        return {"dim": 128, "rows": value}
    if axis == "tasks":
        return {"dim": 128, "tasks": value, "classes": 2 * value}
    return {"dim": 128, "tasks": 2, "classes": value, "name": "class"}


def test_plot(bench: Bench) -> None:
    """Last, of what the others measured."""
    images = bench.figures["growth: images"]
    rows = sorted(images["crop"])
    slopes = {name: _slope({n: at[n]["seconds"] for n in rows}) for name, at in images.items()}
    bench.figures["growth: exponent of seconds in images"] = slopes
    print({name: round(value, 2) for name, value in slopes.items()})
    panels = [
        Panel(
            "images",
            "s",
            {name: {n: at[n]["seconds"] for n in rows} for name, at in images.items()},
        ),
        Panel(
            "images",
            "MB more in memory",
            {name: {n: at[n]["mb"] for n in rows} for name, at in images.items()},
        ),
        *(
            Panel(axis, "ms an iteration", bench.figures[f"growth: {axis}"])
            for axis in ("rows", "tasks", "classes")
        ),
    ]
    draw(panels, bench.folder / "growth.png")


def _slope(seconds: dict[int, float]) -> float:
    """Between the last two sizes, where fixed costs count least: 1 is linear."""
    (a, at_a), (b, at_b) = sorted(seconds.items())[-2:]
    return float(np.log(at_b / at_a) / np.log(b / a))
