"""With a GPU: steps against what the card could do at best, the paper's RAF-DB run, the root.

Skipped where there is none.  The floor of a step is the larger of two times: its
multiply-accumulates at the rate of fp32 products (no TF32, as `train` has it), and the bytes that
its weights move at the rate at which memory is copied, both measured in the same run.  Activations
are in no floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import device as devices
from stages.extract.backbones import choose, cost
from stages.extract.forward import Forward
from stages.extract.recover import move
from stages.extract.weights import load, make_root
from stages.strategies import module
from stages.train.scenario import Scenario
from stages.train.strategy import Setup, Strategy
from stages.train.view import Data, TaskView
from stages.train.watch import Watch
from tests.bench import made_up
from tests.bench.as_train import seed_entry
from tests.bench.measuring import Bench

DEVICE = "cuda"
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
DIM = 4096
STRATEGIES = ("none", "joint", "cumulative", "lr", "lgr", "lgr+d")
RAF_DB, RAF_DB_TEST = 12_271, 3_068
PAPER_S = 1182.0
"""Of the paper's LGR+d on RAF-DB, on its authors' GPU."""
_ADAM, _PASSES = 7, 3
"""Times that a trained weight's four bytes are moved: Adam reads weight, gradient and two moments
and writes all but the gradient; the forward pass reads, the backward pass reads and writes."""


@dataclass(frozen=True)
class Card:
    macs: float
    """Multiply-accumulates a second of an fp32 product."""
    bytes: float
    """A second, read and written."""

    def step(self, strategy: Strategy) -> float:
        """Seconds of an iteration that nothing can be faster than."""
        trained = sum(v.numel() for k, v in strategy.state().items() if k.endswith("exp_avg"))
        frozen = strategy.memory().get("snapshots", 0)
        moved = 4 * trained * (_ADAM + _PASSES) + frozen
        return max(sum(strategy.macs().values()) / self.macs, moved / self.bytes)


@pytest.fixture(scope="module")
def card(bench: Bench) -> Card:
    devices.choose(DEVICE)
    side, room = 4096, 1 << 28
    a, b = (torch.rand(side, side, device=DEVICE) for _ in "ab")
    source, target = (torch.empty(room, dtype=torch.uint8, device=DEVICE) for _ in "ab")
    found = Card(
        macs=side**3 / min(_seconds(lambda: torch.mm(a, b)) for _ in range(10)),
        bytes=2 * room / min(_seconds(lambda: target.copy_(source)) for _ in range(10)),
    )
    bench.figures["GPU"] = {"GMAC/s": found.macs / 1e9, "GB/s": found.bytes / 1e9}
    return found


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step(bench: Bench, card: Card, name: str, tmp_path: Path) -> None:
    data, scenario = _on_device(*made_up.latents(4096, DIM))
    iters, repeats = (200, 1) if bench.quick else (1000, 3)
    setup, steps = partial(_setup, data, scenario, iters), iters * len(scenario.tasks)
    floor = card.step(_begun(name, data, scenario))
    each = [
        _run(name, setup, data, scenario, tmp_path / str(k))["train_seconds"] / steps
        for k in range(repeats)
    ]
    bench.add(
        f"{name}, a step on the GPU",
        each,
        [floor] * repeats,
        against="the card's products or memory",
        equal=f"{DIM}-d, batch 128 (and 128 replayed), meter and log on; {steps} steps",
        aim="shown",
    )


def test_the_papers_run(bench: Bench, tmp_path: Path) -> None:
    """From latents in the GPU's memory to accuracies, log and checkpoints on disk."""
    data, scenario = _on_device(*made_up.latents(RAF_DB, DIM, test_rows=RAF_DB_TEST))
    setup = partial(_setup, data, scenario, 2000)
    seconds = [
        _seconds(partial(_run, "lgr+d", setup, data, scenario, tmp_path / str(k)))
        for k in range(1 if bench.quick else 3)
    ]
    bench.add(
        f"lgr+d, RAF-DB's {RAF_DB} latents, 4 x 2000 iterations",
        seconds,
        [PAPER_S] * len(seconds),
        against="the paper's, on its GPU",
        equal="rows, lengths, batch, iterations; made-up latents of 8 classes",
        aim="under 5 s",
    )


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2"])
def test_a_root(bench: Bench, card: Card, name: str) -> None:
    tap, count = choose(name, None), 1024
    crops = torch.randint(0, 256, (count, 100, 100, 3), dtype=torch.uint8)
    root = move(make_root(tap, load(tap, "random", 0), "none", "none"), DEVICE)
    forward = Forward(DEVICE)

    def run() -> None:
        list(forward(root, crops))

    run()
    seconds = [_seconds(run) for _ in range(3 if bench.quick else 7)]
    each = statistics.median(seconds) / count
    bench.add(
        f"{name} root on the GPU, {count} crops",
        seconds,
        [count * cost(tap, 100).macs / card.macs] * len(seconds),
        against="the card's products",
        equal="from crops to latents in main memory, fp32",
        aim="shown",
        note=f"{1 / each:.0f} crops a second",
    )


def _on_device(data: Data, scenario: Scenario) -> tuple[Data, Scenario]:
    return Data(data.latents.to(DEVICE), data.targets.to(DEVICE)), scenario


def _setup(data: Data, scenario: Scenario, iters: int, watch: Watch) -> Setup:
    return made_up.setup(data, scenario, iters=iters, device=DEVICE, watch=watch)


def _begun(name: str, data: Data, scenario: Scenario) -> Strategy:
    """After a step, so that all that it keeps is there."""
    strategy = made_up.method(name, _setup(data, scenario, 1, Watch()))
    strategy.learn(TaskView(data, scenario.tasks[:1]))
    return strategy


def _run(
    name: str, setup: Callable[[Watch], Setup], data: Data, scenario: Scenario, folder: Path
) -> dict[str, Any]:
    folder.mkdir()
    return seed_entry(name, module(name).Options(), setup, data, scenario, folder)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
