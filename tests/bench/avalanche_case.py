"""What test_avalanche.py gives to both sides, and lgr-pipe's side of it.

Class-incremental, two tasks of four classes, so that the same is meant by both: one head, no task
labels, and at task 2 lgr-pipe's loss 1/2 current + 1/2 replayed is the mean over both halves of
the batch that Avalanche takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.strategies import module
from stages.train.loop import run
from stages.train.scenario import Scenario, make_scenario
from stages.train.strategy import Setup, heads_of
from stages.train.view import Data, TaskView
from stages.train.watch import Watch
from tests.bench.as_train import seed_entry

CLASSES = "abcdefgh"
GROUPS = [tuple("abcd"), tuple("efgh")]
TRAIN, TEST = 512, 40
"""Rows of a class.  A task's training rows are whole batches: Avalanche's loader would give a
rest of its own, lgr-pipe's goes on into the next pass."""
BUFFER = 1024
"""Stored rows: whole batches too."""
_APART = 0.15
"""Deviation of the classes' means, in each dimension, in deviations of the noise: in the steps
that are taken here, answers become neither perfect nor chance."""


@dataclass(frozen=True)
class Case:
    """One run of one strategy."""

    strategy: str
    """lgr-pipe's name of it."""
    dim: int
    batch: int
    """Current rows of a step, and as many replayed ones."""
    iters: int
    """Optimiser steps a task."""
    threads: int
    lr: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Ran:
    """What a run of either side gives."""

    seconds: float
    """Learning and evaluation: before the first task, and after each on all test rows."""
    cpu_seconds: float
    """Of the process, all threads."""
    matrix: list[list[float]]
    """Accuracy after each step of learning (rows) on each task met so far; else NaN."""


def latents(dim: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, D) in (0, 1) and their labels (N,), class by class; first all training rows."""
    stream = np.random.default_rng(0)
    middles = stream.normal(0, _APART, (len(CLASSES), dim))
    labels = np.concatenate([np.repeat(np.arange(8), TRAIN), np.repeat(np.arange(8), TEST)])
    raw = middles[labels] + stream.normal(size=(len(labels), dim))
    return (1 / (1 + np.exp(-raw))).astype(np.float32), labels


def scenario_of(labels: NDArray[np.int64]) -> Scenario:
    place = np.arange(len(labels))
    middle = len(CLASSES) * TRAIN
    return make_scenario("class", CLASSES, labels, place[:middle], place[middle:], GROUPS)


class Ours:
    """lgr-pipe over latents that are in memory."""

    def __init__(self, dim: int) -> None:
        rows, labels = latents(dim)
        self.scenario = scenario_of(labels)
        self.data = Data(torch.from_numpy(rows), torch.from_numpy(self.scenario.targets))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The same, for the other side."""
        tasks = enumerate(self.scenario.tasks)
        rows = {f"{kind}_{k}": getattr(t, f"{kind}_rows") for k, t in tasks for kind in _KINDS}
        return {"latents": self.data.latents.numpy(), "targets": self.scenario.targets, **rows}

    def loud(self, case: Case, folder: Path) -> Ran:
        """As `lgr-pipe train` does it: meter, log and checkpoints."""
        setup = partial(self._setup, case)
        room = module(case.strategy)
        return _timed(
            lambda: seed_entry(
                case.strategy, _options(room), setup, self.data, self.scenario, folder, case.threads
            )["accuracy_matrix"],
            case,
        )

    def lean(self, case: Case) -> Ran:
        """The loop alone."""
        return _timed(lambda: self.learnt(case)[1], case)

    def learnt(self, case: Case) -> tuple[dict[str, Tensor], list[list[float]]]:
        """(the top's weights, R)."""
        room = module(case.strategy)
        method = room.Method(self._setup(case, Watch()), _options(room))
        outcome = run(method, self.data, self.scenario)
        return method.model(), outcome.accuracy_matrix.tolist()

    def order(self, case: Case) -> list[NDArray[np.int64]]:
        """The rows that `learnt` takes for each task, batch after batch: each (iters * B,)."""
        numbers = torch.arange(len(self.data.targets), dtype=torch.float32)[:, None]
        numbered = Data(numbers, self.data.targets)
        room = module(case.strategy)
        method = room.Method(self._setup(case, Watch(), dim=1), _options(room))
        views = [TaskView(numbered, (task,)) for task in self.scenario.tasks]
        taken = [[batch.latents[:, 0] for batch in method.batches(view)] for view in views]
        return [torch.cat(rows).long().numpy() for rows in taken]

    def _setup(self, case: Case, watch: Watch, dim: int | None = None) -> Setup:
        return Setup(
            dim=dim or case.dim,
            heads=heads_of(self.scenario),
            scenario=self.scenario.name,
            iters=case.iters,
            batch_size=case.batch,
            lr=case.lr,
            seed=case.seed,
            device="cpu",
            unit_range=True,
            watch=watch,
        )


_KINDS = ("train", "test")


def _options(room: Any) -> Any:
    named = room.Options.__dataclass_fields__
    return room.Options(buffer_size=BUFFER) if "buffer_size" in named else room.Options()


def _timed(work: Callable[[], list[list[float]]], case: Case) -> Ran:
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        started, cpu = time.perf_counter(), time.process_time()
        matrix = work()
        return Ran(time.perf_counter() - started, time.process_time() - cpu, known(matrix))
    finally:
        torch.set_num_threads(before)


def known(matrix: list[list[Any]]) -> list[list[float]]:
    """None as NaN."""
    return [[float("nan") if v is None else float(v) for v in row] for row in matrix]
