"""An iteration of each strategy, meter and log on, against a loop without any bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import Refused
from pipeline.device import multiply
from pipeline.events import Events
from stages.train.adam import Adam
from stages.train.meter import Meter
from stages.train.view import TaskView
from stages.train.watch import Telling
from tests.bench import bare, made_up
from tests.bench.measuring import Bench, processor

pytestmark = pytest.mark.bench
DIM, BATCH = 4096, 128
ITERATIONS = {"none": 60, "joint": 30, "lr": 40, "lgr": 10, "lgr+d": 10}
"""Between two readings of the clock: about half a second."""
EQUAL = "same batches, draws, networks and Adam; same weights after it"


def ready(name: str, log: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """The second task's learning, ours and bare, each from where the first one ended; both are
    run once, and must come to the same weights."""
    data, scenario = made_up.latents(4096, DIM)
    joint = name == "joint"
    meter = Meter(0.1).__enter__()
    watch = Telling(meter.phase, lambda: None, Events(log).__enter__().write)
    given = made_up.setup(data, scenario, iters=ITERATIONS[name], batch_size=BATCH, watch=watch)
    ours, same = (made_up.method(name, given) for _ in "ab")
    if not joint:
        for method in (ours, same):
            method.learn(TaskView(data, scenario.tasks[:1]))
    task = TaskView(data, scenario.tasks if joint else scenario.tasks[1:2])
    loop = bare.Bare(same, data, scenario, len(scenario.tasks) if joint else 2)

    def run() -> None:
        ours.learn(task)

    def run_bare() -> None:
        bare.LOOPS[name](loop)

    run(), run_bare()
    found: Any = (ours.model(), same.model())
    assert all(torch.allclose(found[0][k], found[1][k], atol=1e-5) for k in found[0])
    return run, run_bare


def compare(bench: Bench, name: str, threads: int, folder: Path, repeats: int) -> None:
    with processor(threads):
        run, run_bare = ready(name, folder / "log.jsonl")
        steps = ITERATIONS[name] * (4 if name == "joint" else 1)
        bench.compare(
            f"{name}, {steps} iterations of {BATCH}, {threads} thread{'s'[: threads - 1]}",
            run,
            run_bare,
            against="bare loop",
            equal=EQUAL,
            aim=">= 0.91 (<= 1.10 of its time)",
            repeats=repeats,
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["none", "lr", "lgr+d"])
def test_an_iteration(bench: Bench, name: str, threads: int, tmp_path: Path) -> None:
    compare(bench, name, threads, tmp_path, repeats=9)


@pytest.mark.parametrize("name", ["lgr", "joint"])
def test_of_the_others(bench: Bench, name: str, tmp_path: Path) -> None:
    if bench.quick:
        pytest.skip("quick")
    compare(bench, name, 1, tmp_path, repeats=7)


@pytest.mark.parametrize("name", ["none", "lr", "lgr+d"])
def test_rounded_products(bench: Bench, name: str, tmp_path: Path) -> None:
    """`--precision bf16`, where the processor has it."""
    if bench.quick:
        pytest.skip("quick")

    def at(precision: str) -> Callable[[], None]:
        def learn() -> None:
            multiply(precision, "cpu")
            run()

        return learn

    try:
        multiply("bf16", "cpu")
    except Refused as why:
        pytest.skip(str(why))
    multiply("fp32", "cpu")
    with processor(2):
        run, _ = ready(name, tmp_path / "log.jsonl")
        bench.compare(
            f"{name}, --precision bf16, 2 threads",
            at("bf16"),
            at("fp32"),
            against="--precision fp32",
            equal="batches, networks; one goes on from the other's weights",
            aim="-",
            repeats=5,
        )
    multiply("fp32", "cpu")


def test_what_denormal_moments_cost(bench: Bench) -> None:
    """A step of Adam on a layer whose units have died, long ago and without flushing to zero."""
    weights = torch.nn.Parameter(torch.rand(200, DIM))
    adam, milliseconds = Adam([weights], 1e-4), dict[str, float]()
    with processor(1):
        for name, flush in (("denormal", False), ("flushed", True)):
            torch.set_flush_denormal(flush)
            weights.grad = torch.zeros_like(weights)
            adam.step()
            adam.state[0]["exp_avg"].fill_(1e-41)
            started = time.perf_counter()
            for _ in range(5):
                adam.step()
            milliseconds[name] = 200 * (time.perf_counter() - started)
    assert not adam.state[0]["exp_avg"].any()
    bench.figures["adam step on dead units, ms"] = milliseconds
    print(f"\na step of Adam on 200 x {DIM} weights of dead units, ms: {milliseconds}")
