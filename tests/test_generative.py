"""Strategies that replay what a generator draws, latents or images."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cache.errors import Refused
from stages import strategies
from stages.train.loop import run
from stages.train.losses import soft_replay
from stages.train.scenario import Name, Scenario
from stages.train.seeds import generator
from stages.train.strategy import Setup, Strategy
from stages.train.view import Data, TaskView
from tests.world import make_images, make_method, make_setup, make_world


def test_snapshots_stay_as_they_were() -> None:
    """The old top and VAE label and draw for the whole task unchanged."""
    data, scenario = make_world()
    method: Any = make_method("lgr", make_setup(scenario, iters=4))
    method.learn(TaskView(data, scenario.tasks[:1]))
    assert method._old_heads == (range(0, 2),)
    old = {"vae": method.old_vae, "top": method.old_top}
    before = {name: deepcopy(module.state_dict()) for name, module in old.items()}
    captured = []
    original = method._replay

    def spy(*words: Any) -> Any:
        same = [
            torch.equal(value, before[name][key])
            for name, module in old.items()
            for key, value in module.state_dict().items()
        ]
        captured.append(all(same))
        return original(*words)

    method._replay = spy
    method.learn(TaskView(data, scenario.tasks[1:]))
    assert captured == [True] * 4
    after = method.vae.state_dict()
    assert not torch.equal(after["output.weight"], before["vae"]["output.weight"])


def _last_logits(name: str, setup: Setup, world: tuple[Data, Scenario], **options: Any) -> Tensor:
    data, scenario = world
    module = strategies.module(name)
    method: Strategy = module.Method(setup, module.Options(**options))
    run(method, data, scenario)
    return method.logits(data.latents)


@pytest.mark.parametrize("scenario_name", ["task", "class", "domain"])
@pytest.mark.parametrize("protocol", ["corrected", "released"])
@pytest.mark.parametrize(
    ("image", "latent", "options"),
    [
        ("nr", "lr", {"buffer_size": 20}),
        ("dgr", "lgr", {"generator_units": 30}),
        ("dgr+d", "lgr+d", {"generator_units": 30, "replay_pool": 40}),
        ("dgr+d", "lgr+d", {"generator_units": 30, "algorithm": "printed"}),
    ],
)
def test_images_are_their_latents_where_the_root_changes_nothing(
    image: str, latent: str, options: dict[str, Any], protocol: str, scenario_name: Name
) -> None:
    """An independent path to the same numbers: to the bit."""
    world = make_world(scenario_name)
    setup = make_setup(world[1], iters=12, protocol=protocol)
    assert torch.equal(
        _last_logits(image, setup, world, **options), _last_logits(latent, setup, world, **options)
    )


def test_a_strategy_on_images_asks_for_crops() -> None:
    _, scenario = make_world()
    for name in ("nr", "dgr", "dgr+d"):
        with pytest.raises(Refused, match="--crops"):
            make_method(name, make_setup(scenario, images=None))


def test_a_root_is_asked_only_about_what_was_drawn() -> None:
    """A pool of 40 images a task: 40 passes at task 2, none at task 1; fresh: a batch each."""
    data, scenario = make_world()
    for options, passes in (({"replay_pool": 40}, 40), ({}, 12 * 16)):
        asked: list[int] = []

        def root(images: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(len(images))
            return images.clone()

        setup = make_setup(scenario, iters=12, images=replace(make_images(), root=root))
        module = strategies.module("dgr")
        run(module.Method(setup, module.Options(generator_units=8, **options)), data, scenario)
        assert sum(asked) == passes


@pytest.mark.parametrize("name", ["lgr", "lgr+d"])
def test_generators_learn_latents_of_any_range(name: str) -> None:
    """Latents far outside [0, 1]: the VAE draws in their scale, and old tasks are kept."""
    data, scenario = make_world("class")
    wide = Data(data.latents * 300 - 80, data.targets, data.crops)
    method: Any = make_method(name, make_setup(scenario, unit_range=False, iters=200, lr=1e-3))
    method.learn(TaskView(wide, scenario.tasks[:1]))
    drawn = method.vae.sample(500, generator(0, "look"))
    rows = torch.from_numpy(scenario.tasks[0].train_rows)
    real = wide.latents[rows]
    assert torch.allclose(drawn.mean(0), real.mean(0), atol=0.5 * float(real.std()))
    assert float(drawn.std()) > 0.3 * float(real.std())


def test_an_algorithm_as_printed_starts_anew() -> None:
    """Tasks 2's networks do not depend on what those of task 1 became, but for its replays:
    with a share of one for what is new, they do not depend on task 1 at all."""
    data, scenario = make_world()
    options = strategies.module("lgr").Options(algorithm="printed")
    kept = []
    for other in (data, Data(1 - data.latents, data.targets)):
        method: Any = strategies.module("lgr").Method(make_setup(scenario, iters=3), options)
        method.learn(TaskView(other, scenario.tasks[:1]))
        method._start_anew(TaskView(data, scenario.tasks[1:]))
        kept.append(method.model() | {"vae": method.vae.output.weight.detach().clone()})
        assert not method.optimiser.state
    assert all(torch.equal(kept[0][k], kept[1][k]) for k in kept[0])
    assert not torch.equal(kept[0]["vae"], method._new_vae("vae").output.weight)


def test_heads_of_several_widths_weigh_the_same() -> None:
    """The mean over old heads, each by itself, whatever their widths."""
    data, scenario = make_world()
    heads = (range(0, 1), range(1, 2), range(2, 4))
    method: Any = make_method("lgr+d", make_setup(scenario, heads=heads))
    method._old_heads = heads
    stream = generator(0, "answers")
    old, new = torch.randn(2, 7, 4, generator=stream)
    each = [soft_replay(new, old, head, head, temperature=2.0) for head in heads]
    found = method._replay(old, new, TaskView(data, scenario.tasks[1:]))
    assert torch.allclose(found, torch.stack(each).mean())
