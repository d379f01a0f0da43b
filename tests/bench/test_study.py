"""A whole study of LGR with VGG-16: extract once and train k times, against the root in the loop.

Few steps are taken, and what the paper's 8000 take is computed from them.  Two times with the root
in the loop, so that what the cache gives is told from what a faster root gives: VGG-16 as
torchvision has it, and lgr-pipe's own root.  Reading the root's weights is in no figure.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cache.reader import Cache
from cache.schema import SPLITS
from stages.datasets import read
from stages.draw.dataset import draw
from stages.extract.backbones import choose
from stages.extract.forward import Forward
from stages.extract.latents import publish_latents
from stages.extract.random_weights import random_network
from stages.extract.source import CachedCrops
from stages.extract.weights import load, make_root
from stages.strategies import module
from stages.train.scenario import make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data, TaskView
from stages.train.watch import Watch
from tests.bench.as_train import seed_entry
from tests.bench.measuring import Bench
from tests.bench.root_in_loop import Files, RootInLoop
from tests.making import latent_parts, make_crops, nothing

pytestmark = pytest.mark.bench
TASKS, ITERS, BATCH = 4, 2000, 128
"""The paper's; CK+ took 32 rows a step."""
SIZES = {
    "drawn": (672, 288, BATCH),
    "CK+": (1_043, 264, 32),
    "RAF-DB": (12_271, 3_068, BATCH),
    "AffectNet": (88_021, 4_000, BATCH),
}
"""Training images, test images, rows a step: as `make repro` draws them, and of the published
runs."""
TAP = choose("vgg16", None)
_UNIT = 64
"""Images of a unit of work."""


@dataclass
class Rates:
    """What was measured, a value a repeat."""

    extract: list[float] = field(default_factory=list)
    """Seconds an image: file to cached latent."""
    set_up: list[float] = field(default_factory=list)
    """Seconds that the root takes to lay out its weights, once an extraction."""
    train: dict[int, list[float]] = field(default_factory=lambda: {BATCH: [], 32: []})
    """Seconds an iteration of so many cached rows."""
    besides: list[float] = field(default_factory=list)
    """Seconds of a run outside iterations: networks, evaluations, checkpoints."""
    loop: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "own": []})
    """Seconds an image of an iteration with the root in the loop, by root."""

    def extraction(self, size: str) -> list[float]:
        train, test, _ = SIZES[size]
        pairs = zip(self.set_up, self.extract, strict=True)
        return [once + (train + test) * each for once, each in pairs]

    def ours(self, size: str, k: int) -> list[float]:
        """Seconds of a study of k runs."""
        steps = self.train[SIZES[size][2]]
        every = zip(self.extraction(size), steps, self.besides, strict=True)
        return [once + k * (TASKS * ITERS * step + besides) for once, step, besides in every]

    def in_loop(self, root: str, size: str, k: int) -> list[float]:
        """The same; the test images pass once, after the last task."""
        _, test, batch = SIZES[size]
        return [k * (TASKS * ITERS * batch + test) * each for each in self.loop[root]]


class Study:
    """The same images, weights and rows of each step for all."""

    def __init__(self, folder: Path, per_class: int, batch: int) -> None:
        self._folder, self._batch = folder, batch
        draw(folder / "drawn", per_class, 0, overwrite=False, tick=nothing)
        self._dataset = read("drawn", folder / "drawn")
        self.images = self._dataset.size
        paths = [Path(str(sample.image)) for sample in self._dataset.samples]
        self.files = Files(paths, [0] * len(paths))  # of which class, the cache will say
        plain = _spread(random_network(TAP, 0), self.files)
        self.weights = folder / "root.safetensors"
        save_file(plain.state_dict(), self.weights)
        own = make_root(TAP, load(TAP, str(self.weights), 0), "sigmoid", "none")
        forward = Forward("cpu")
        self.roots: dict[str, Callable[[Tensor], Tensor]] = {
            "plain": lambda images: torch.sigmoid(plain(images)),
            "own": lambda images: torch.cat(list(forward(own.latents, images))),
        }

    def extract(self, name: str) -> tuple[Path, float, float]:
        """The latent cache; seconds an image, from its file on; seconds before the first."""
        crops, out = self._folder / f"{name}-crops", self._folder / name
        seconds = _seconds(
            partial(make_crops, crops, self._dataset, unit_rows=_UNIT, face_crop="off")
        )
        with Cache(crops) as cache:
            parts, extractor = latent_parts(cache, out, TAP.name, str(self.weights))
            source, (first, *rest) = CachedCrops(cache), parts.plan.units
            beginning = _seconds(lambda: extractor.run(source, [first], {first}))
            root = _seconds(lambda: extractor.run(source, rest, set(rest)))
            root /= self.images - _UNIT
            seconds += _seconds(
                lambda: publish_latents(parts, cache, store="zarr", overwrite=False, started=0.0)
            )
        return out, seconds / self.images + root, max(0.0, beginning - _UNIT * root)

    def open(self, path: Path) -> None:
        """Cut the cache into tasks."""
        with Cache(path) as cache:
            rows, labels = cache.bulk(), cache.side("label")
            split, classes = cache.side("split"), cache.manifest.classes
        train, test = (np.flatnonzero(split == SPLITS.index(s)) for s in ("train", "test"))
        groups = [classes[k : k + 2] for k in range(0, len(classes), 2)]
        self.scenario = make_scenario("task", classes, labels, train, test, groups)
        self.data = Data(torch.from_numpy(rows), torch.from_numpy(self.scenario.targets))
        self.files.targets = self.scenario.targets.tolist()

    def setup(self, iters: int, batch: int, watch: Watch, dim: int = 4096) -> Setup:
        return Setup(
            dim=dim,
            heads=heads_of(self.scenario),
            scenario="task",
            iters=iters,
            batch_size=batch,
            lr=1e-4,
            seed=0,
            device="cpu",
            unit_range=True,
            watch=watch,
        )

    def train(self, name: str, iters: int, batch: int) -> tuple[float, float]:
        """A run of lgr over the cache: seconds an iteration, and seconds of all else."""
        folder = self._folder / name
        folder.mkdir()
        setup, options = partial(self.setup, iters, batch), module("lgr").Options()
        started = time.perf_counter()
        entry = seed_entry("lgr", options, setup, self.data, self.scenario, folder)
        seconds, learning = time.perf_counter() - started, entry["train_seconds"]
        return learning / (TASKS * iters), seconds - learning

    def rows(self, task: int) -> Tensor:
        """Those that lgr takes for the first step of a task."""
        numbers = torch.arange(len(self.data.targets), dtype=torch.float32)[:, None]
        view = TaskView(Data(numbers, self.data.targets), (self.scenario.tasks[task],))
        method = module("none").Method(
            self.setup(1, self._batch, Watch(), dim=1), module("none").Options()
        )
        (batch,) = method.batches(view)
        taken: Tensor = batch.latents[:, 0]
        return taken.long()

    def in_loop(self, root: str) -> RootInLoop:
        return RootInLoop(self.roots[root], 4096, heads_of(self.scenario), 1e-4)

    def iteration(self, loop: RootInLoop, task: int) -> None:
        for images, targets in self.files.batches(self.rows(task), self._batch):
            loop.step(images, targets, task)


def test_study(bench: Bench, tmp_path: Path) -> None:
    """Images on disk to the end of k runs."""
    per_class, batch, repeats, iters = (16, 64, 2, 5) if bench.quick else (24, 128, 3, 10)
    study = Study(tmp_path, per_class, batch)
    rates = Rates()
    for repeat in range(repeats):
        path, seconds, once = study.extract(f"latents-{repeat}")
        rates.extract.append(seconds)
        rates.set_up.append(once)
        if not repeat:
            study.open(path)
            _same_latents(study)
            study.train("warm-up", 1, BATCH)
            loops = {name: study.in_loop(name) for name in study.roots}
        for name, loop in loops.items():
            seconds = _seconds(partial(study.iteration, loop, repeat % TASKS))
            rates.loop[name].append(seconds / batch)
            loop.close_task()
        for rows, taken in rates.train.items():
            step, besides = study.train(f"run-{repeat}-{rows}", iters, rows)
            taken.append(step)
        rates.besides.append(besides)
    study.weights.unlink()  # half a gigabyte
    _tell(bench, rates, study.images, batch)


def _tell(bench: Bench, rates: Rates, images: int, batch: int) -> None:
    equal = "images, weights, rows of each step, networks, losses; latents agree to 1e-4"
    for size in ("RAF-DB", "drawn"):
        for k, aim in ((1, ">= 30"), (10, ">= 100")):
            bench.add(
                f"LGR VGG-16, {size}'s {SIZES[size][0]} images, {k} run{'s' * (k > 1)}",
                rates.ours(size, k),
                rates.in_loop("plain", size, k),
                against="root in the loop",
                equal=equal,
                aim=aim,
                note=f"extrapolated: {images} images extracted, steps of {batch} images",
            )
    told = {size: _about(rates, size) for size in SIZES}
    for size, found in told.items():
        print(f"  {size:10} {found}")
    measured = {
        "extract, ms an image": 1e3 * statistics.median(rates.extract),
        **{
            f"train, {rows} rows, ms an iteration": 1e3 * statistics.median(values)
            for rows, values in rates.train.items()
        },
        **{
            f"{root} root in the loop, ms an image": 1e3 * statistics.median(values)
            for root, values in rates.loop.items()
        },
    }
    print(f"  {measured}")
    bench.figures["study"] = {"measured": measured, "computed": told}


def _about(rates: Rates, size: str) -> dict[str, float]:
    """Medians; `break_even_runs`: from so many on, extracting pays."""
    extraction = statistics.median(rates.extraction(size))
    train = statistics.median(rates.ours(size, 1)) - extraction
    plain, own = (statistics.median(rates.in_loop(root, size, 1)) for root in ("plain", "own"))
    train_images, _, batch = SIZES[size]
    found = {
        "root_passes_an_image": TASKS * ITERS * batch / train_images,
        "extract_s": extraction,
        "train_s": train,
        "root_in_loop_s": plain,
        "break_even_runs": extraction / (plain - train) if plain > train else math.inf,
    }
    for k in (1, 10):
        found[f"ratio_{k}"] = k * plain / (extraction + k * train)
        found[f"ratio_{k}_of_the_cache_alone"] = k * own / (extraction + k * train)
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def _same_latents(study: Study) -> None:
    """What the roots in the loop see of the first step is what the cache holds."""
    rows = study.rows(0)
    (images, targets), *_ = study.files.batches(rows, len(rows))
    assert torch.equal(targets, study.data.targets[rows])
    for root in study.roots.values():
        with torch.inference_mode():
            torch.testing.assert_close(root(images), study.data.latents[rows], atol=1e-4, rtol=0)
    assert study.data.latents.std(0).mean() > 0.05  # they differ from image to image


def _spread(network: nn.Module, files: Files) -> nn.Module:
    """Random filters whose latents vary from image to image, as those of learnt ones do."""
    (images, _), *_ = files.batches(torch.arange(0, len(files), len(files) // 16), 16)
    layer = network.get_submodule(TAP.layer)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        before = network(images)
        scale = 1 / before.std(0).mean()
        layer.weight.mul_(scale)
        layer.bias.copy_(-scale * before.mean(0))
    return network


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
