"""Stored real latents: a sample of all rows seen, of fixed size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stages.train.view import Batch

Policy = Literal["reservoir", "balanced"]


def row_bytes(dim: int) -> int:
    """Of a stored row: its latent (float32), target and task (int64 each)."""
    return 4 * dim + 8 + 8


class Reservoir:
    """A uniform sample of the rows seen: Vitter's algorithm R (1985), each row offered once.

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
        """Of what is stored."""
        return len(self) * row_bytes(self._latents.shape[1])

    def offer(self, batch: Batch, generator: torch.Generator) -> None:
        """Let each row in with the probability that keeps the sample what it is to be."""
        targets = batch.targets.tolist()
        for k, task in enumerate(batch.tasks.tolist()):
            slot = self._slot((task, targets[k]), generator)
            self._seen += 1
            if slot is not None:
                self._latents[slot] = batch.latents[k]
                self._targets[slot] = targets[k]
                self._tasks[slot] = task

    def _slot(self, kind: tuple[int, int], generator: torch.Generator) -> int | None:
        """Where a row of this kind, (task, target), goes; None: nowhere."""
        del kind
        if self._seen < self.capacity:
            return self._seen
        slot = int(torch.randint(self._seen + 1, (1,), generator=generator))
        return slot if slot < self.capacity else None

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


Kind = tuple[int, int]
"""(task, target): a class, in every scenario."""


class Balanced(Reservoir):
    """As equal a number of rows of each class as there were, uniform within a class.

    Class-balancing reservoir sampling (Chrysakis & Moens, "Online Continual
    Learning from Imbalanced Data", ICML 2020, algorithm 1): a row of a class
    that never was the largest takes the place of one of the largest; a row of
    another enters as in a reservoir of its class.
    """

    def __init__(self, capacity: int, dim: int, device: str) -> None:
        super().__init__(capacity, dim, device)
        self._slots: dict[Kind, list[int]] = {}
        self._met: dict[Kind, int] = {}
        self._full: set[Kind] = set()

    def _slot(self, kind: Kind, generator: torch.Generator) -> int | None:
        def draw(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator))

        self._met[kind] = self._met.get(kind, 0) + 1
        mine = self._slots.setdefault(kind, [])
        if self._seen < self.capacity:
            mine.append(self._seen)
            return self._seen
        most = max(len(slots) for slots in self._slots.values())
        largest = sorted(k for k, slots in self._slots.items() if len(slots) == most)
        self._full.update(largest)
        if kind not in self._full:
            theirs = self._slots[largest[draw(len(largest))]]
            mine.append(theirs.pop(draw(len(theirs))))
            return mine[-1]
        place = draw(self._met[kind])
        return mine[place] if place < len(mine) else None

    def state(self) -> dict[str, Tensor]:
        kinds = sorted(self._met)
        table = [[*kind, self._met[kind], kind in self._full] for kind in kinds]
        slots = [slot for kind in kinds for slot in self._slots[kind]]
        return super().state() | {
            "kinds": torch.tensor(table, dtype=torch.int64).reshape(-1, 4),
            "slots": torch.tensor(slots, dtype=torch.int64),
            "counts": torch.tensor([len(self._slots[kind]) for kind in kinds]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        rest = iter(state["slots"].tolist())
        counts = state["counts"].long().tolist()
        self._slots, self._met, self._full = {}, {}, set()
        for (task, target, met, full), count in zip(state["kinds"].tolist(), counts, strict=True):
            kind = (task, target)
            self._slots[kind] = [next(rest) for _ in range(count)]
            self._met[kind] = met
            if full:
                self._full.add(kind)


POLICIES: dict[Policy, type[Reservoir]] = {"reservoir": Reservoir, "balanced": Balanced}
