"""A step that is recorded, without a GPU by a stand-in; and that an iteration waits for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stages import strategies
from stages.train.capture import Captured, CudaGraphs
from stages.train.loop import run
from stages.train.meter import Meter
from stages.train.scenario import Name, Scenario
from stages.train.seeds import generator
from stages.train.strategy import Setup
from stages.train.view import Data, TaskView
from stages.train.watch import Telling, Watch
from tests.world import ALL, make_setup, make_world

T = TypeVar("T")
LATENT = ["none", "joint", "cumulative", "lr", "lgr", "lgr+d"]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "lr": [{"buffer_size": 20}],
    "lgr": [{"generator_units": 20}, {"generator_units": 20, "algorithm": "printed"}],
    "lgr+d": [{"generator_units": 20}, {"generator_units": 20, "replay_pool": 40}],
    "dgr": [{"generator_units": 20}],
    "dgr+d": [{"generator_units": 20}],
}
CASES = [(name, options) for name in LATENT for options in OPTIONS.get(name, [{}])]


class StandIn:
    """Keeps the call, and puts what it gives another time where its first results are.

    A GPU executes nothing while it records; this executes then, and not when it is first asked
    to run the recording.
    """

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.recorded, self.replayed = fails, 0, 0

    def aside(self, call: Callable[[], T]) -> T:
        return call()

    def record(
        self, call: Callable[[], T], streams: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        assert all(isinstance(stream, torch.Generator) for stream in streams)
        self.recorded += 1
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        found, done = call(), True

        def again() -> None:
            nonlocal done
            self.replayed += 1
            if done:
                done = False
                return
            for mine, theirs in zip(tensors(found), tensors(call()), strict=True):
                mine.copy_(theirs)

        return again, found


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return list((found if isinstance(found, dict) else vars(found)).values())


def make(name: str, setup: Setup, options: dict[str, Any], *graphs: StandIn | None) -> Any:
    """With its own recorder, unless another is given."""
    module = strategies.module(name)
    method = module.Method(setup, module.Options(**options))
    if graphs:
        (method.graphs,) = graphs
    return method


def learnt(
    world: tuple[Data, Scenario], name: str, options: dict[str, Any], graphs: StandIn | None
) -> tuple[dict[str, Tensor], list[tuple[str, dict[str, Any]]]]:
    """The state at the end, and the events."""
    events: list[tuple[str, dict[str, Any]]] = []
    with Meter(60.0) as meter:
        watch = Telling(
            meter.phase, lambda: None, lambda name, **told: events.append((name, told)), interval=4
        )
        method = make(name, make_setup(world[1], iters=12, watch=watch), options, graphs)
        run(method, *world, watch=watch)
    return method.state(), [(name, told) for name, told in events if name != "learnt"]


@pytest.mark.parametrize("scenario_name", ["task", "class"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_recorded_steps_are_steps(name: str, options: dict[str, Any], scenario_name: Name) -> None:
    """States and logged losses to the bit; steps fail to be recorded: the same, and it is told."""
    world = make_world(scenario_name)
    expected, events = learnt(world, name, options, None)
    assert any("solver" in told for _, told in events)
    graphs = StandIn()
    found, told = learnt(world, name, options, graphs)
    assert graphs.replayed >= 9 * graphs.recorded > 0
    assert told == events
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    found, told = learnt(world, name, options, StandIn(fails=True))
    refused = [fields["why"] for name, fields in told if name == "not recorded"]
    assert refused
    assert all("capturing" in why for why in refused)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["lr", "lgr+d"])
def test_a_resumed_run_records_anew(name: str) -> None:
    data, scenario = make_world()
    options = OPTIONS[name][0]
    first, second = (make(name, make_setup(scenario, iters=8), options, StandIn()) for _ in "ab")
    first.learn(TaskView(data, scenario.tasks[:1]))
    saved = deepcopy(first.state())
    first.learn(TaskView(data, scenario.tasks[1:]))
    second.load_state(saved)
    second.learn(TaskView(data, scenario.tasks[1:]))
    assert torch.equal(first.logits(data.latents), second.logits(data.latents))


def test_a_recording_is_for_one_shape() -> None:
    step = Captured(lambda x: x + 1, [], StandIn(), print)
    for k in range(6):
        assert torch.equal(step(torch.full((2, 3), k)), torch.full((2, 3), k + 1))
    with pytest.raises(ValueError, match=r"recorded for \(2, 3\), given \(3,\)"):
        step(torch.zeros(3))


# --- nothing waits for the device -----------------------------------------------------------------

_WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "_unique2"}


class NoWaiting(TorchDispatchMode):
    """Refuses what must read a GPU's memory back."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        assert name not in _WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scenario_name", ["task", "class", "domain"])
@pytest.mark.parametrize("name", ALL)
def test_an_iteration_waits_for_nothing(name: str, scenario_name: Name) -> None:
    """From the end of a task's first iteration to the end of its last, a logging interval
    excepted; with what it is to catch let in, it does catch it."""
    data, scenario = make_world(scenario_name)
    iterations = 9
    guard, ticks = NoWaiting(), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks % iterations == 1:
            guard.__enter__()
        if ticks % iterations == 0:
            guard.__exit__(None, None, None)

    with Meter(60.0) as meter:
        watch = Telling(meter.phase, tick, lambda *_, **__: None, interval=1000)
        setup = make_setup(scenario, iters=iterations, watch=watch)
        method = make(name, setup, OPTIONS.get(name, [{}])[0], None)
        steps = [scenario.tasks] if name == "joint" else [scenario.tasks[:1], scenario.tasks[1:]]
        if name == "joint":
            iterations *= 2
        for step in steps:
            method.learn(TaskView(data, step))
    assert ticks == 18
    with pytest.raises(AssertionError, match="waits for the device"), guard:
        float(torch.ones(3).sum())


# --- on a GPU ---------------------------------------------------------------------------------

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@gpu
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_gpu_records_what_it_would_do(name: str, options: dict[str, Any]) -> None:
    """Recorded and as it is: the same state to the bit, random streams included."""
    data, scenario = make_world()
    there = Data(data.latents.cuda(), data.targets.cuda())
    states, seen = [], list[str]()
    for recorded in (True, False):
        watch = Telling(Watch().phase, lambda: None, lambda name, **_: seen.append(name))
        method = make(name, make_setup(scenario, iters=12, device="cuda", watch=watch), options)
        assert method.graphs is not None
        if not recorded:
            method.graphs = None
        run(method, there, scenario, watch=watch)
        states.append(method.state())
    assert "not recorded" not in seen
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())


@gpu
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_gpu_is_not_waited_for(name: str, options: dict[str, Any]) -> None:
    """Torch itself refuses to wait, from a task's second iteration to its last."""
    data, scenario = make_world()
    there = Data(data.latents.cuda(), data.targets.cuda())
    modes = itertools.cycle(["error"] * 8 + ["default"])
    watch = Telling(
        Watch().phase, lambda: torch.cuda.set_sync_debug_mode(next(modes)), lambda *_, **__: None
    )
    method = make(name, make_setup(scenario, iters=9, device="cuda", watch=watch), options, None)
    try:
        run(method, there, scenario, watch=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
def test_a_gpu_draws_on_after_a_recording_has_failed() -> None:
    stream, other = (generator(0, "draws", device="cuda") for _ in "ab")

    def step() -> Tensor:
        drawn = torch.rand(4, device="cuda", generator=stream)
        float(drawn.sum())  # read back: cannot be recorded
        return drawn

    failed: list[str] = []
    captured = Captured(step, [stream], CudaGraphs(torch.device("cuda")), failed.append)
    for _ in range(6):
        assert torch.equal(captured(), torch.rand(4, device="cuda", generator=other))
    assert len(failed) == 1
