"""Looks at what is replayed, between tasks: is it like the real rows, and what is it taken for?

Nothing here is part of learning: random streams of its own, and the strategy is given no row.
Real rows are a sample without repeats of the training rows of all tasks learnt so far.

    variance ratio    trace of the covariance of the replayed latents over that of the real ones:
                      a generator that has collapsed draws always the same, and has near 0
    NCM agreement     share of the answers to replayed rows that are also the answer of the nearest
                      mean of a class's real rows, among the classes of the head that answers.
                      Of real rows with their own labels, each is left out of its class's mean: what
                      a new real row would reach.  Stored rows may be among those of the means, and
                      reach a little more; a generator that has collapsed on one class reaches all,
                      so that this says something only beside the variance ratio
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.train import components
from stages.train.nearest import Arrays, Classes, Found, Real
from stages.train.replayed import Replaying
from stages.train.scenario import Scenario
from stages.train.seeds import generator
from stages.train.view import Source

REAL, REPLAYED = 1000, 500
"""Rows that are looked at, at most."""
AXES = 50
"""Principal components that are kept."""
_FITTED = 500
"""Real rows that they are of: of all 1000 they would take five times as long, more than all the
rest of looking."""
_ROOM = 1 << 24
"""Bytes that the real rows may take: 1000 rows of up to 4194 values."""


@dataclass(frozen=True)
class Looked:
    """One state of what is replayed."""

    figures: dict[str, Any]
    """An entry of `replay` in metrics.json."""
    shown: Arrays | None
    """To be drawn, of the last state only: what replay.safetensors holds."""


@dataclass(frozen=True)
class Recorder:
    """Of one seed."""

    data: Source
    scenario: Scenario
    seed: int
    crop_rows: NDArray[np.int64] | None = None
    """(N,) where there are crops: of each row, its crop's row in the crop cache."""

    def look(self, strategy: object, learnt: int) -> Looked | None:
        """After the first `learnt` tasks; None where nothing is replayed, or no task comes in
        which it could be."""
        tasks = self.scenario.tasks
        if learnt >= len(tasks) or not isinstance(strategy, Replaying):
            return None
        device = str(self.data.targets.device)
        parts = strategy.replayed(REPLAYED, generator(self.seed, "look", learnt, device=device))
        first = next(parts, None)
        if first is None:
            return None
        rows, real = self._real(learnt)
        last = learnt == len(tasks) - 1
        axes = components.fit(real.latents[:_FITTED], AXES) if last else None
        found = Found(real, axes)
        for part in chain([first], parts):
            found.add(part)
        shown = self._with_crops(found.shown(), rows) if last else None
        return Looked({"learnt": learnt, **found.figures()}, shown)

    def _real(self, learnt: int) -> tuple[Tensor, Real]:
        """Rows of the cache, int64 (n,), in a random order, and what is in them."""
        scenario, tasks = self.scenario, self.scenario.tasks[:learnt]
        rows = np.concatenate([task.train_rows for task in tasks])
        tasks_of = np.concatenate([np.full(len(t.train_rows), t.index) for t in tasks])
        stream = generator(self.seed, "look at real rows", learnt)
        most = min(REAL, max(2, _ROOM // (4 * self.data.dim)))
        some = torch.randperm(len(rows), generator=stream)[:most].numpy()
        rows, tasks_of = rows[some], tasks_of[some]
        # Of a class: its place in class order, and its output, which domain-incrementally differs.
        shift = np.array(scenario.starts) - [task.columns.start for task in scenario.tasks]
        places = torch.from_numpy(scenario.targets[rows] + shift[tasks_of])
        kinds = torch.tensor([(task.index, output) for task in tasks for output in task.columns])
        names = scenario.class_order[: len(kinds)]
        classes = Classes(names, kinds[:, 0], kinds[:, 1], by_head=scenario.name == "task")
        asked = torch.from_numpy(rows)
        return asked, Real(classes, self.data.read(asked).cpu(), places)

    def _with_crops(self, shown: Arrays, rows: Tensor) -> Arrays:
        """With the images, as many real ones of the same tasks to stand beside them."""
        if "images" not in shown or self.crop_rows is None:
            return shown
        real = self.crop_rows[rows.numpy()[: len(shown["images"])]]
        return {**shown, "real_rows": real.astype(np.int64)}
