"""Networks, losses, batches, buffer, loop; and the contract that every strategy keeps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import Refused
from stages import strategies
from stages.train.buffer import Balanced, Reservoir
from stages.train.loop import figures, run
from stages.train.losses import (
    hard_replay,
    head_mask,
    masked_cross_entropy,
    soft_replay,
    vae_losses,
)
from stages.train.networks import VAE, Top, parameter_count
from stages.train.scenario import Name, Scenario, make_scenario
from stages.train.seeds import generator
from stages.train.strategy import Setup, Strategy, heads_of
from stages.train.view import Batch, Data, TaskView

ALL = strategies.names()


def _world(name: Name = "task", rows: int = 240, dim: int = 12) -> tuple[Data, Scenario]:
    """Four classes around four corners of the unit cube, two tasks."""
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
    return Data(torch.from_numpy(latents).float(), torch.from_numpy(scenario.targets)), scenario


def _setup(scenario: Scenario, **changes: Any) -> Setup:
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
        tick=lambda: None,
    )
    return replace(plain, **changes)


def _method(name: str, setup: Setup) -> Strategy:
    module = strategies.module(name)
    method: Strategy = module.Method(setup, module.Options())
    return method


# --- networks and losses ------------------------------------------------------


def test_vae_has_the_papers_parameters() -> None:
    """1,785,004 in the paper counts a classifier of 200 -> 8 that is never trained."""
    vae = parameter_count(VAE(4096, torch.Generator(), hidden=200, z=100))
    assert vae == 1_783_396
    assert vae + 8 * (200 + 1) == 1_785_004
    assert parameter_count(VAE(128, torch.Generator(), hidden=128)) + 1_290 == 105_966


def test_dropout_acts_only_with_a_stream() -> None:
    top = Top(12, 4, generator(0, "top"))
    x = torch.rand(5, 12)
    assert torch.equal(top(x), top(x))
    dropped = top(x, generator(0, "dropout"))
    assert not torch.equal(dropped, top(x))
    assert torch.equal(dropped, top(x, generator(0, "dropout")))
    many = torch.stack([top(x, generator(k, "d")) for k in range(4000)]).mean(0)
    assert torch.allclose(many, top(x), atol=0.03)  # the mean is kept


def test_each_row_is_scored_on_its_own_head() -> None:
    """Two heads of two; by hand: softmax over the row's own pair only."""
    heads = head_mask([range(0, 2), range(2, 4)], 4, torch.device("cpu"))
    logits = torch.tensor([[1.0, 3.0, 9.0, 9.0], [9.0, 9.0, 0.0, 2.0]])
    targets, tasks = torch.tensor([0, 3]), torch.tensor([0, 1])
    loss = masked_cross_entropy(logits, targets, heads[tasks])
    by_hand = (math.log(1 + math.e**2) + math.log(1 + math.e**-2)) / 2
    assert math.isclose(float(loss), by_hand, rel_tol=1e-6)


def test_hard_replay_by_hand() -> None:
    old = torch.tensor([[5.0, 1.0, 7.0, 0.0]])
    new = torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    task_wise = hard_replay(new, old, range(0, 2), range(0, 2))
    assert math.isclose(float(task_wise), math.log(1 + math.e**-2), rel_tol=1e-6)
    second = hard_replay(new, old, range(2, 4), range(2, 4))
    assert math.isclose(float(second), math.log(2), rel_tol=1e-6)
    among_all = hard_replay(new, old, range(0, 2), range(0, 4))
    total = math.e**2 + 1 + 2 * math.e
    assert math.isclose(float(among_all), math.log(total) - 2, rel_tol=1e-6)


def test_soft_replay_by_hand() -> None:
    """tau = 2: targets softmax(z / 2), loss times 4; equal answers give 4 x entropy."""
    z = torch.tensor([[2.0, 0.0]])
    p = 1 / (1 + math.exp(-1))
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    loss = soft_replay(z, z, range(0, 2), range(0, 2), temperature=2.0)
    assert math.isclose(float(loss), 4 * entropy, rel_tol=1e-5)
    padded = soft_replay(
        torch.zeros(1, 4), torch.zeros(1, 4), range(0, 2), range(0, 4), temperature=1.0
    )
    assert math.isclose(float(padded), math.log(4), rel_tol=1e-6)


def test_vae_loss_by_hand() -> None:
    """All weights zero: the output is 0.5 everywhere, z's mean and log variance are 0."""
    vae = VAE(6, torch.Generator(), hidden=3, z=2)
    for parameter in vae.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]])
    assert math.isclose(vae_losses(vae, x, torch.Generator()).item(), math.log(2), rel_tol=1e-6)
    torch.nn.init.constant_(vae.mean.bias, 3.0)
    divergence = 0.5 * 2 * 9.0 / 6
    expected = math.log(2) + divergence
    assert math.isclose(vae_losses(vae, x, torch.Generator()).item(), expected, rel_tol=1e-6)


# --- what a strategy sees -------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=30)
def test_a_pass_visits_each_row_once(count: int, size: int) -> None:
    data, scenario = _world(rows=40)
    view = TaskView(data, scenario.tasks[:1])
    batches = list(view.batches(count, size, generator(0, "b")))
    assert [len(b.targets) for b in batches] == [size] * count
    drawn = torch.cat([b.latents for b in batches])
    full = len(drawn) // len(view)
    visits = Counter(tuple(row) for row in drawn[: full * len(view)].tolist())
    assert not full or set(visits.values()) == {full}


def test_a_view_ends_at_its_task() -> None:
    data, scenario = _world()
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
    data, scenario = _world()
    poisoned = Data(data.latents.clone(), data.targets)
    poisoned.latents[torch.from_numpy(scenario.tasks[1].train_rows)] = float("nan")
    outputs = []
    for world in (data, poisoned):
        method = _method(name, _setup(scenario))
        method.learn(TaskView(world, scenario.tasks[:1]))
        outputs.append(method.logits(data.latents))
    assert torch.equal(*outputs)


# --- buffer ---------------------------------------------------------------------


def _numbered(start: int, stop: int) -> Batch:
    values = torch.arange(start, stop)
    return Batch(values.float()[:, None].expand(-1, 3), values, values % 5)


@given(st.integers(1, 20), st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_reservoir_holds_rows_that_were_offered_once_each(capacity: int, offers: list[int]) -> None:
    buffer = Reservoir(capacity, 3, "cpu")
    start, stream = 0, generator(0, "slots")
    for count in offers:
        buffer.offer(_numbered(start, start + count), stream)
        start += count
    state = buffer.state()
    assert len(buffer) == min(capacity, start) == len(set(state["targets"].tolist()))
    assert buffer.bytes == len(buffer) * (3 * 4 + 16)
    assert torch.equal(state["latents"][:, 0].long(), state["targets"])
    assert torch.equal(state["tasks"], state["targets"] % 5)
    sample = buffer.sample(2 * len(buffer), stream)
    assert set(Counter(sample.targets.tolist()).values()) == {2}


@given(
    st.integers(1, 20),
    st.lists(st.sampled_from("aaaaab"), min_size=1, max_size=120),
)
def test_a_balanced_buffer_shares_its_slots(capacity: int, stream: list[str]) -> None:
    """No class has more than another, unless that other gave all it had; no slot is lost."""
    buffer, random = Balanced(capacity, 1, "cpu"), generator(0, "slots")
    seen: Counter[int] = Counter()
    for k, name in enumerate(stream):
        target = ord(name) - ord("a")
        seen[target] += 1
        row = Batch(torch.tensor([[float(k)]]), torch.tensor([target]), torch.tensor([0]))
        buffer.offer(row, random)
        stored = Counter(buffer.state()["targets"].tolist())
        assert sum(stored.values()) == min(capacity, k + 1)
        few, many = min(stored.values()), max(stored.values())
        rare = min(stored, key=lambda t: stored[t])
        assert many - few <= 1 or stored[rare] == seen[rare]
    values = buffer.state()["latents"][:, 0].tolist()
    assert len(set(values)) == len(values)
    copy = Balanced(capacity, 1, "cpu")
    copy.load_state(buffer.state())
    more = Batch(torch.arange(30.0)[:, None], torch.arange(30) % 3, torch.zeros(30).long())
    for both in (buffer, copy):
        both.offer(more, generator(1, "slots"))
    assert torch.equal(buffer.state()["latents"], copy.state()["latents"])


def test_reservoir_is_uniform() -> None:
    """Each of 40 rows stays in 10 slots with probability 1/4 (5 sigma)."""
    kept: Counter[int] = Counter()
    trials = 800
    for trial in range(trials):
        buffer = Reservoir(10, 3, "cpu")
        stream = generator(trial, "slots")
        buffer.offer(_numbered(0, 15), stream)
        buffer.offer(_numbered(15, 40), stream)
        kept.update(buffer.state()["targets"].tolist())
    sigma = math.sqrt(trials * 0.25 * 0.75)
    assert all(abs(kept[row] - trials / 4) < 5 * sigma for row in range(40))


# --- the contract -----------------------------------------------------------------


@pytest.mark.parametrize("scenario_name", ["task", "class", "domain"])
@pytest.mark.parametrize("name", ALL)
def test_learns_and_repeats_to_the_last_bit(name: str, scenario_name: Name) -> None:
    data, scenario = _world(scenario_name)
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # the global generator must not matter
        outcome = run(_method(name, _setup(scenario)), data, scenario)
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
    data, scenario = _world("class")
    kept = {}
    for strategy in ("none", name):
        outcome = run(_method(strategy, _setup(scenario, iters=200)), data, scenario)
        kept[strategy] = outcome.accuracy_matrix[-1, 0]
    assert kept["none"] < 0.2
    assert kept[name] > kept["none"] + 0.3, kept


@pytest.mark.parametrize("name", ALL)
def test_another_seed_is_another_run(name: str) -> None:
    data, scenario = _world()
    states = []
    for seed in (0, 1):
        method = _method(name, _setup(scenario, seed=seed, iters=3))
        run(method, data, scenario)
        states.append(method.state()["top.output.weight"])
    assert not torch.equal(*states)


@pytest.mark.parametrize("name", ALL)
def test_state_carries_everything(name: str) -> None:
    """Saved after task 1 and loaded into a new object, task 2 goes the same way to the bit."""
    data, scenario = _world()
    first, second = (_method(name, _setup(scenario, iters=8)) for _ in range(2))
    first.learn(TaskView(data, scenario.tasks[:1]))
    saved = first.state()
    first.learn(TaskView(data, scenario.tasks[1:]))
    second.load_state(saved)
    assert torch.equal(saved["top.output.weight"], second.state()["top.output.weight"])
    second.learn(TaskView(data, scenario.tasks[1:]))
    assert torch.equal(first.logits(data.latents), second.logits(data.latents))
    assert first.memory() == second.memory()


def test_memory_is_counted_to_the_byte() -> None:
    data, scenario = _world()
    methods = {name: _method(name, _setup(scenario, iters=2)) for name in ALL}
    for method in methods.values():
        run(method, data, scenario)
    vae = parameter_count(VAE(12, torch.Generator())) * 4
    top = parameter_count(Top(12, 4, torch.Generator())) * 4
    assert methods["none"].memory() == methods["joint"].memory() == {}
    trained = sum(len(task.train_rows) for task in scenario.tasks)
    assert methods["lr"].memory() == {"buffer": trained * (12 * 4 + 16)}
    assert methods["lgr"].memory() == {"generator": vae, "snapshots": vae + top}
    assert methods["lgr+d"].memory() == methods["lgr"].memory()


def test_snapshots_stay_as_they_were() -> None:
    """The old top and VAE label and draw for the whole task unchanged."""
    data, scenario = _world()
    method: Any = _method("lgr", _setup(scenario, iters=4))
    method.learn(TaskView(data, scenario.tasks[:1]))
    before = {k: v for k, v in method.state().items() if k.startswith("old_")}
    heads = method._old_heads
    assert heads == (range(0, 2),)
    captured = []
    original = method._replay

    def spy(*words: Any) -> Any:
        state = method.state()
        captured.append(all(torch.equal(before[k], state[k]) for k in before))
        return original(*words)

    method._replay = spy
    method.learn(TaskView(data, scenario.tasks[1:]))
    assert captured == [True] * 4


def test_generators_refuse_latents_outside_their_range() -> None:
    _, scenario = _world()
    with pytest.raises(Refused, match="--activation sigmoid"):
        _method("lgr", _setup(scenario, unit_range=False))


def test_divergence_is_no_result() -> None:
    data, scenario = _world()
    with pytest.raises(Refused, match="diverged"):
        run(_method("none", _setup(scenario, lr=1e30)), data, scenario)


def test_every_strategy_has_its_header() -> None:
    for name in ALL:
        header = strategies.module(name).__doc__ or ""
        for word in ("Idea:", "Cost:"):
            assert word in header, f"{name} has no {word}"


def test_streams_are_independent_of_order() -> None:
    a = torch.rand(3, generator=generator(0, "a"))
    torch.rand(3, generator=generator(0, "b"))
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), a)
    assert not torch.equal(torch.rand(3, generator=generator(1, "a")), a)
