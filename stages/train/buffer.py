"""Stored real latents: a uniform random sample of all rows seen, of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.train.view import Batch


class Reservoir:
    """Vitter's algorithm R (1985) over rows, each offered once.

    Memory is allocated once; a row is copied into its slot, so nothing else
    stays alive.  The task is kept with each row, so that it can be scored on
    its own head.
    """

    def __init__(self, capacity: int, dim: int, device: str) -> None:
        self._latents = torch.empty(capacity, dim, device=device)
        self._targets = torch.empty(capacity, dtype=torch.int64, device=device)
        self._tasks = torch.empty(capacity, dtype=torch.int64, device=device)
        self._seen = 0

    @property
    def capacity(self) -> int:
        return len(self._targets)

    def __len__(self) -> int:
        return min(self._seen, self.capacity)

    @property
    def bytes(self) -> int:
        """Of what is stored: latents, targets and tasks."""
        row = self._latents.shape[1] * 4 + 8 + 8
        return len(self) * row

    def offer(self, batch: Batch, generator: torch.Generator) -> None:
        """Let each row in with the probability that keeps the sample uniform."""
        for k in range(len(batch.targets)):
            slot = self._seen
            if slot >= self.capacity:
                slot = int(torch.randint(self._seen + 1, (1,), generator=generator))
            self._seen += 1
            if slot < self.capacity:
                self._latents[slot] = batch.latents[k]
                self._targets[slot] = batch.targets[k]
                self._tasks[slot] = batch.tasks[k]

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` rows, without repeats as far as there are enough.

        Raises:
            ValueError: nothing is stored.
        """
        if not len(self):
            raise ValueError("the buffer is empty")
        order = torch.cat(
            [torch.randperm(len(self), generator=generator) for _ in range(-(-count // len(self)))]
        )
        slots = order[:count].to(self._targets.device)
        return Batch(self._latents[slots], self._targets[slots], self._tasks[slots])

    def state(self) -> dict[str, Tensor]:
        stored = len(self)
        return {
            "latents": self._latents[:stored].clone(),
            "targets": self._targets[:stored].clone(),
            "tasks": self._tasks[:stored].clone(),
            "seen": torch.tensor(self._seen),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        stored = len(state["targets"])
        self._latents[:stored] = state["latents"]
        self._targets[:stored] = state["targets"]
        self._tasks[:stored] = state["tasks"]
        self._seen = int(state["seen"])
