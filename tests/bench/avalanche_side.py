"""Avalanche's side of test_avalanche.py: a job a line comes in, what it gave a line goes out, JSON.

A program of its own, for an interpreter that has avalanche-lib, which lgr-pipe's need not: that
package brings some thirty others, and a package `tests` that would hide this project's.

Equal on both sides: latents, the top and its first weights and dropout, fused Adam and its
settings, which outputs a loss may choose among, optimiser steps, rows of a batch, a uniform sample
of the first task in the buffer, when all test rows are answered and among which outputs.  Rows
and replays are drawn by Avalanche's own loaders, from the same seed but other random numbers.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.supervised import JointTraining, Naive, Replay
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stages.train.networks import Top
from stages.train.seeds import generator

CLASSES = 8
TASK_CLASSES = 4
EVAL_ROWS = {"default": 128, "lean": 128, "tuned": 1024}
"""eval_mb_size of each setting; Avalanche's own default is 1."""


class Solver(nn.Module):
    """lgr-pipe's top; its dropout acts in train mode, as Avalanche has it."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        self.top = Top(dim, CLASSES, generator(seed, "top"))
        self._dropout = generator(seed, "dropout")

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.top(latents, self._dropout if self.training else None)
        return out


class Hook(SupervisedPlugin):
    """Stops a task at its number of optimiser steps, and counts the right answers.

    Not at a number of epochs: with replay, Avalanche's loader makes them of other lengths.
    """

    def __init__(self, iters: int) -> None:
        super().__init__()
        self._iters, self._left = iters, 0
        self.seen = CLASSES
        self.steps: list[int] = []
        self.accuracies: list[float] = []

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Among the classes met so far; when answers are judged, among all."""
        seen = self.seen if self._left else CLASSES
        return nn.functional.cross_entropy(logits[:, :seen], targets)

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        del strategy
        self._left = self._iters
        self.steps.append(0)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self._left -= 1
        self.steps[-1] += 1
        if not self._left:
            strategy.stop_training()

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        del strategy
        self._right = self._asked = 0

    def after_eval_forward(self, strategy: Any, **_: Any) -> None:
        answers = strategy.mb_output[:, : self.seen].argmax(1)
        self._right += int((answers == strategy.mb_y).sum())
        self._asked += len(answers)

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        del strategy
        self.accuracies.append(self._right / self._asked)


def _dataset(x: Tensor, y: Tensor) -> Any:
    held: Any = TensorDataset(x, y)
    held.targets = y.tolist()
    return as_classification_dataset(held)


class Run:
    """One job: "data" (npz), "strategy", "setting", "dim", "batch", "iters", "lr", "seed",
    "buffer", "threads"; with "order" (npz), rows are taken in the order that it holds for each
    task."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        order = np.load(job["order"]) if "order" in job else None
        self._shuffle = order is None
        with np.load(job["data"]) as held:
            x, y = torch.from_numpy(held["latents"]), torch.from_numpy(held["targets"])
            rows = {name: held[name] for name in held.files if "_" in name}
        if order is not None:
            rows |= {name: order[name] for name in order.files}

        def experiences(kind: str) -> list[Any]:
            parts = [torch.from_numpy(rows[f"{kind}_{k}"]) for k in range(2)]
            return [_dataset(x[p], y[p]) for p in parts]

        self._benchmark = benchmark_from_datasets(
            train=experiences("train"), test=experiences("test")
        )

    def done(self) -> dict[str, Any]:
        torch.set_num_threads(self.job["threads"])
        torch.manual_seed(self.job["seed"])
        gc.collect()
        started, cpu = time.perf_counter(), time.process_time()
        hook = Hook(self.job["iters"] * (2 if self.job["strategy"] == "joint" else 1))
        solver = Solver(self.job["dim"], self.job["seed"])
        strategy = self._strategy(solver, hook)
        matrix = self._learn(strategy, hook)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "matrix": matrix}
        if "weights" in self.job:
            np.savez(self.job["weights"], **{k: v.numpy() for k, v in solver.state_dict().items()})
        return found | {"steps": hook.steps}

    def _strategy(self, solver: Solver, hook: Hook) -> Any:
        job = self.job
        shared: dict[str, Any] = {
            "model": solver,
            "optimizer": torch.optim.Adam(solver.parameters(), lr=job["lr"], fused=True),
            "criterion": hook.loss,
            "train_mb_size": job["batch"],
            "train_epochs": hook._iters,  # at least so many steps; the hook ends it
            "eval_mb_size": EVAL_ROWS[job["setting"]],
            "device": "cpu",
            "evaluator": default_evaluator if job["setting"] == "default" else EvaluationPlugin(),
            "plugins": [hook],
        }
        if job["strategy"] == "none":
            return Naive(**shared)
        if job["strategy"] == "joint":
            return JointTraining(**shared)
        return Replay(**shared, mem_size=job["buffer"])

    def _learn(self, strategy: Any, hook: Hook) -> list[list[float | None]]:
        """R, None where lgr-pipe has no answer."""
        test, how = self._benchmark.test_stream, {"num_workers": 0, "drop_last": True}
        strategy.eval(test, num_workers=0)
        hook.accuracies.clear()
        if self.job["strategy"] == "joint":
            strategy.train(self._benchmark.train_stream, **how)
            strategy.eval(test, num_workers=0)
            return [[None, None], list(hook.accuracies)]
        matrix: list[list[float | None]] = []
        for k, experience in enumerate(self._benchmark.train_stream):
            hook.seen = TASK_CLASSES * (k + 1)
            strategy.train(experience, shuffle=self._shuffle, **how)
            strategy.eval(test, num_workers=0)
            matrix.append([*hook.accuracies[: k + 1], *[None] * (1 - k)])
            hook.accuracies.clear()
        return matrix


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open("w") as nowhere:  # for what Avalanche prints
        os.dup2(nowhere.fileno(), 1)
        versions = {"avalanche": metadata.version("avalanche-lib"), "torch": torch.__version__}
        print(json.dumps(versions), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(Run(json.loads(line)).done()), file=answers, flush=True)


if __name__ == "__main__":
    main()
