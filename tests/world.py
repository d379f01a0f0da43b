"""A small world to learn in: four classes around four corners of the unit cube, two tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages import strategies
from stages.train.scenario import Name, Scenario, make_scenario
from stages.train.strategy import Images, Setup, Strategy, heads_of
from stages.train.view import Data

ALL = strategies.names()


def make_world(name: Name = "task", rows: int = 240, dim: int = 12) -> tuple[Data, Scenario]:
    """Latents in [0, 1] that are whole 255ths, so that a crop can hold them."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 4
    centres = rng.random((4, dim)) * 0.6 + 0.2
    latents = np.clip(centres[labels] + rng.normal(0, 0.08, (rows, dim)), 0, 1)
    is_test = np.arange(rows) % 5 == 0
    everything = np.arange(rows)
    groups = [("a", "b"), ("c", "d")]
    scenario = make_scenario(
        name, "abcd", labels, everything[~is_test], everything[is_test], groups
    )
    values = torch.from_numpy(np.round(latents * 255).astype(np.uint8))
    targets = torch.from_numpy(scenario.targets)
    return Data(values.float() / 255, targets, values.reshape(rows, 2, 2, dim // 4)), scenario


def make_images() -> Images:
    """Crops of 2 x 2 pixels whose 12 values are the latent: the root gives them back."""

    def pixels(crops: Tensor) -> Tensor:
        return crops.flatten(1).float() / 255

    return Images(side=2, size=12, pixels=pixels, root=lambda images: images.clone(), macs=7)


def make_setup(scenario: Scenario, **changes: Any) -> Setup:
    plain = Setup(
        dim=12,
        heads=heads_of(scenario),
        scenario=scenario.name,
        iters=60,
        batch_size=16,
        lr=3e-3,
        seed=0,
        device="cpu",
        unit_range=True,
        images=make_images(),
    )
    return replace(plain, **changes)


def make_method(name: str, setup: Setup) -> Strategy:
    """With a small generator: the paper's for images takes most of a test's time."""
    module = strategies.module(name)
    small = {"generator_units": 40} if hasattr(module.Options, "generator_units") else {}
    method: Strategy = module.Method(setup, module.Options(**small))
    return method
