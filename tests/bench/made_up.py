"""Inputs of any size that need no data: classes around centres, images of noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stages import strategies
from stages.datasets.sample import Dataset, Sample, build
from stages.train.scenario import Name, Scenario, make_scenario
from stages.train.strategy import Setup, Strategy, heads_of
from stages.train.view import Data
from tests.world import make_images

TEST_ROWS = 1000


def latents(
    rows: int,
    dim: int,
    *,
    classes: int = 8,
    tasks: int = 4,
    name: Name = "task",
    test_rows: int = TEST_ROWS,
) -> tuple[Data, Scenario]:
    """`rows` training rows, at least one of each class, and `test_rows` test rows (at least as
    many as classes); values in [0, 1]."""
    count = rows + max(test_rows, classes)
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = torch.from_numpy(rng.random((classes, dim), dtype=np.float32))
    values = torch.rand(count, dim, generator=torch.Generator().manual_seed(0))
    for start in range(0, count, 100_000):
        span = slice(start, start + 100_000)
        values[span] = 0.8 * centres[torch.from_numpy(labels[span])] + 0.2 * values[span]
    names = [f"class {k}" for k in range(classes)]
    groups = [tuple(group) for group in np.array_split(np.array(names), tasks)]
    everything = np.arange(count)
    scenario = make_scenario(
        name, names, labels, everything[:rows], everything[rows:], [tuple(g) for g in groups]
    )
    return Data(values, torch.from_numpy(scenario.targets)), scenario


def setup(data: Data, scenario: Scenario, **changes: Any) -> Setup:
    """The paper's batch and learning rate."""
    plain = Setup(
        dim=data.latents.shape[1],
        heads=heads_of(scenario),
        scenario=scenario.name,
        iters=100,
        batch_size=128,
        lr=1e-4,
        seed=0,
        device="cpu",
        unit_range=True,
        images=make_images(),
    )
    return replace(plain, **changes)


def method(name: str, given: Setup, **options: Any) -> Strategy:
    """A strategy with its default options, but for those given."""
    module = strategies.module(name)
    made: Strategy = module.Method(given, module.Options(**options))
    return made


def images(rows: int, side: int, classes: int = 2) -> Dataset:
    """In memory, as MNIST's are: a coarse pattern of the class, at some brightness, in noise."""
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(classes)]
    coarse = rng.random((classes, 4, 4))
    patterns = np.kron(coarse, np.ones((side // 4, side // 4)))
    grey = np.empty((rows, side, side, 1), dtype=np.uint8)
    for k in range(rows):
        light, noise = rng.uniform(120, 200), rng.integers(0, 50, (side, side))
        grey[k, :, :, 0] = light * patterns[k % classes] + noise
    pixels = np.broadcast_to(grey, (rows, side, side, 3))
    return build("made-up", _samples(pixels, names), tuple(names))


def _samples(pixels: np.ndarray[Any, Any], names: list[str]) -> Iterable[Sample]:
    for k, picture in enumerate(pixels):
        label, split = names[k % len(names)], "train" if k // len(names) % 5 else "test"
        yield Sample(f"{k:07d}", picture, label, "", split)
