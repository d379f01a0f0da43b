"""The contract that every strategy keeps, and the loop that runs it."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import Refused
from stages import strategies
from stages.train.figures import figures
from stages.train.loop import Progress, run
from stages.train.networks import VAE, Top, parameter_count
from stages.train.scenario import Name
from stages.train.seeds import generator
from stages.train.view import Data, TaskView
from tests.world import ALL, make_method, make_setup, make_world


@given(st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=30)
def test_a_pass_visits_each_row_once(count: int, size: int) -> None:
    data, scenario = make_world(rows=40)
    view = TaskView(data, scenario.tasks[:1])
    batches = list(view.batches(count, size, generator(0, "b")))
    assert [len(b.targets) for b in batches] == [size] * count
    drawn = torch.cat([b.latents for b in batches])
    full = len(drawn) // len(view)
    visits = Counter(tuple(row) for row in drawn[: full * len(view)].tolist())
    assert not full or set(visits.values()) == {full}


def test_a_view_ends_at_its_task() -> None:
    data, scenario = make_world()
    view = TaskView(data, scenario.tasks[1:])
    batch = view.take(torch.arange(len(view)))
    assert set(batch.targets.tolist()) == {2, 3}
    assert set(batch.tasks.tolist()) == {1}
    for outside in (-1, len(view)):
        with pytest.raises(IndexError):
            view.take(torch.tensor([outside]))


@pytest.mark.parametrize("name", [n for n in ALL if n != "joint"])
def test_no_strategy_reads_another_tasks_rows(name: str) -> None:
    """Poison task 2's rows: what is known after task 1 must not change by a bit."""
    data, scenario = make_world()
    crops = data.crops.clone() if data.crops is not None else None
    poisoned = Data(data.latents.clone(), data.targets, crops)
    others = torch.from_numpy(scenario.tasks[1].train_rows)
    poisoned.latents[others] = float("nan")
    if poisoned.crops is not None:
        poisoned.crops[others] = 255
    outputs = []
    for world in (data, poisoned):
        method = make_method(name, make_setup(scenario))
        method.learn(TaskView(world, scenario.tasks[:1]))
        outputs.append(method.logits(data.latents))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("scenario_name", ["task", "class", "domain"])
@pytest.mark.parametrize("name", ALL)
def test_learns_and_repeats_to_the_last_bit(name: str, scenario_name: Name) -> None:
    data, scenario = make_world(scenario_name)
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # the global generator must not matter
        outcome = run(make_method(name, make_setup(scenario)), data, scenario)
        results.append(figures(outcome, scenario))
        results[-1].pop("train_seconds")
    assert results[0] == results[1]
    entry = results[0]
    last = entry["accuracy_matrix"][-1]
    assert len(last) == 2
    hard = scenario_name == "domain" and name in ("joint", "cumulative")  # both tasks at once
    assert last[1] > (0.8 if hard else 0.85)  # what was learnt last is known
    if name == "joint":
        assert entry["accuracy_matrix"][0] == [None, None]
        assert entry["forgetting"] is None
        assert min(last) > (0.8 if hard else 0.85)
    else:
        assert entry["accuracy_matrix"][0][0] > 0.85
        assert entry["forgetting"] is not None
    assert (entry["fwt"] is None) == (scenario_name == "class" or name == "joint")


@pytest.mark.parametrize("name", ["lr", "lgr", "lgr+d"])
def test_replay_forgets_less_than_none_class_incrementally(name: str) -> None:
    data, scenario = make_world("class")
    kept = {}
    for strategy in ("none", name):
        outcome = run(make_method(strategy, make_setup(scenario, iters=200)), data, scenario)
        kept[strategy] = outcome.accuracy_matrix[-1, 0]
    assert kept["none"] < 0.2
    assert kept[name] > kept["none"] + 0.3, kept


@pytest.mark.parametrize("name", ALL)
def test_another_seed_is_another_run(name: str) -> None:
    data, scenario = make_world()
    states = []
    for seed in (0, 1):
        method = make_method(name, make_setup(scenario, seed=seed, iters=3))
        run(method, data, scenario)
        states.append(method.state()["top.output.weight"])
    assert not torch.equal(*states)


@pytest.mark.parametrize("name", ALL)
def test_state_carries_everything(name: str) -> None:
    """Saved after task 1 and loaded into a new object, task 2 goes the same way to the bit."""
    data, scenario = make_world()
    first, second = (make_method(name, make_setup(scenario, iters=8)) for _ in range(2))
    first.learn(TaskView(data, scenario.tasks[:1]))
    saved = deepcopy(first.state())
    first.learn(TaskView(data, scenario.tasks[1:]))
    second.load_state(saved)
    assert torch.equal(saved["top.output.weight"], second.state()["top.output.weight"])
    second.learn(TaskView(data, scenario.tasks[1:]))
    assert torch.equal(first.logits(data.latents), second.logits(data.latents))
    assert first.memory() == second.memory()


def test_memory_is_counted_to_the_byte() -> None:
    data, scenario = make_world()
    methods = {name: make_method(name, make_setup(scenario, iters=2)) for name in ALL}
    for method in methods.values():
        run(method, data, scenario)
    vae = parameter_count(VAE(12, torch.Generator(), hidden=40)) * 4
    top = parameter_count(Top(12, 4, torch.Generator())) * 4
    assert methods["none"].memory() == methods["joint"].memory() == {}
    trained = sum(len(task.train_rows) for task in scenario.tasks)
    assert methods["lr"].memory() == {"buffer": trained * (12 * 4 + 16)}
    assert methods["lgr"].memory() == {"generator": vae, "snapshots": vae + top}
    assert methods["lgr+d"].memory() == methods["lgr"].memory()
    assert methods["nr"].memory() == {"buffer": trained * (12 + 16)}
    assert methods["dgr"].memory() == methods["lgr"].memory()
    assert methods["cumulative"].memory() == methods["lr"].memory()


def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_interrupted() -> None:
    data, scenario = make_world()
    for name in ALL:
        whole: list[Any] = []
        kept: dict[str, Any] = {}

        def keep(progress: Progress, _: Any, kept: dict[str, Any] = kept) -> None:
            kept.setdefault("first", (deepcopy(progress), deepcopy(kept["method"].state())))

        kept["method"] = make_method(name, make_setup(scenario, iters=8))
        outcome = run(kept["method"], data, scenario, after_step=keep)
        progress, state = kept["first"]
        again = make_method(name, make_setup(scenario, iters=8))
        again.load_state(state)
        resumed = run(again, data, scenario, progress=progress)
        for one in (outcome, resumed):
            entry = figures(one, scenario)
            entry.pop("train_seconds")
            whole.append(entry)
        assert whole[0] == whole[1], name


def test_divergence_is_no_result() -> None:
    data, scenario = make_world()
    with pytest.raises(Refused, match="diverged"):
        run(make_method("none", make_setup(scenario, lr=1e30)), data, scenario)


def test_every_strategy_has_its_header() -> None:
    for name in ALL:
        header = strategies.module(name).__doc__ or ""
        for word in ("Idea:", "Cost:"):
            assert word in header, f"{name} has no {word}"
