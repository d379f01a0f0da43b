"""dgr on images: replays drawn afresh in each iteration against a pool drawn once a task.

Predicted from the multiply-accumulates that `strategies` lists: of an iteration's passes of the
root over what was drawn, a pool keeps pool / (iterations x batch); the steps of the networks stay.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.reader import Cache
from pipeline.image_root import load_images
from stages.train.loop import run
from stages.train.scenario import make_scenario
from stages.train.view import Data
from tests.bench import made_up
from tests.bench.measuring import Bench
from tests.making import make_crops, make_latents

pytestmark = pytest.mark.bench

_SIDE = 32
_POOL = 256


def _world(folder: Path) -> Any:
    """Images of eight classes in two tasks, their latents, and the root."""
    made = made_up.images(800, _SIDE, classes=8)
    make_crops(folder / "crops", made, size=_SIDE, face_crop="off")
    make_latents(folder / "latents", folder / "crops", "resnet18")
    with Cache(folder / "latents") as cache:
        values = cache.bulk("float32")
        names = cache.manifest.classes
        groups = [names[k : k + 4] for k in range(0, len(names), 4)]
        train, test = cache.split_rows("train"), cache.split_rows("test")
        scenario = make_scenario("class", names, cache.side("label"), train, test, groups)
        images, pictures = load_images(cache, values, folder / "crops", None, "cpu")
    data = Data(torch.from_numpy(values), torch.from_numpy(scenario.targets), pictures)
    return data, scenario, images


def test_pool_against_fresh(bench: Bench, tmp_path: Path) -> None:
    seeds, iters = (1, 20) if bench.quick else (3, 150)
    data, scenario, images = _world(tmp_path)
    seconds: dict[int, list[float]] = {0: [], _POOL: []}
    accuracy: dict[int, list[float]] = {0: [], _POOL: []}
    for seed in range(seeds):
        given = made_up.setup(
            data, scenario, seed=seed, iters=iters, batch_size=32, lr=1e-3, images=images
        )
        for pool in (_POOL, 0):
            started = time.perf_counter()
            method = made_up.method("dgr", given, replay_pool=pool, generator_units=200)
            outcome = run(method, data, scenario)
            seconds[pool].append(time.perf_counter() - started)
            accuracy[pool].append(100 * float(outcome.accuracy_matrix[-1].mean()))
    said = {
        name: f"{statistics.mean(accuracy[pool]):.1f} ± "
        + (f"{statistics.stdev(accuracy[pool]):.1f}" if seeds > 1 else "?")
        for name, pool in (("pool", _POOL), ("fresh", 0))
    }
    bench.figures["dgr: accuracy, % (seeds)"] = {"pool": accuracy[_POOL], "fresh": accuracy[0]}
    bench.add(
        f"dgr with a pool of {_POOL}, {_SIDE} px, {iters} iterations",
        seconds[_POOL],
        seconds[0],
        against="fresh",
        equal="images, root (resnet18), seeds, iterations, batch 32",
        aim="both costs shown",
        note=f"accuracy {said['pool']} with it, {said['fresh']} without",
    )
