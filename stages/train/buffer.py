"""Stored real rows, latents or crops: a sample of all rows seen, of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Policy = Literal["reservoir", "balanced"]


@dataclass(frozen=True)
class Form:
    """What is stored of a row: a latent (D,) float32, or a crop (S, S, 3) uint8."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of a stored row, with its target and task (int64 each)."""
        return math.prod(self.shape) * self.dtype.itemsize + 8 + 8

    def empty(self, rows: int, device: str) -> Rows:
        """Room for so many rows."""
        return Rows(
            torch.empty(rows, *self.shape, dtype=self.dtype, device=device),
            torch.empty(rows, dtype=torch.int64, device=device),
            torch.empty(rows, dtype=torch.int64, device=device),
        )


def latent_form(dim: int) -> Form:
    return Form((dim,), torch.float32)


@dataclass(frozen=True)
class Rows:
    """Rows as they are stored."""

    values: Tensor
    """(N, ...) latents or crops."""
    targets: Tensor
    """int64 (N,)."""
    tasks: Tensor
    """int64 (N,), so that each row can be scored on its own head."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: slice | Tensor) -> Rows:
        return Rows(self.values[index], self.targets[index], self.tasks[index])

    def put(self, slots: Tensor, other: Rows) -> None:
        """Copy the k-th row of `other` into the k-th slot (int64 (n,), no two alike)."""
        slots = slots.to(self.targets.device)
        self.values[slots] = other.values
        self.targets[slots] = other.targets
        self.tasks[slots] = other.tasks

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("values", "targets", "tasks")}

    def fill(self, state: dict[str, Tensor]) -> int:
        """From the first slot on; how many there were."""
        stored = len(state["targets"])
        for name in ("values", "targets", "tasks"):
            getattr(self, name)[:stored] = state[name]
        return stored


@dataclass(frozen=True)
class Entering:
    """Rows of those offered that enter a buffer, in the order in which they were offered."""

    rows: Tensor
    """int64 (m,), positions among those offered."""
    slots: Tensor
    """int64 (m,), no two alike."""


def last_in_each(places: Tensor) -> Entering:
    """Who is in a slot in the end, if each row in turn goes to its place; int64 (n,), -1: none."""
    found = places.numpy()
    slots, from_end = np.unique(found[::-1], return_index=True)
    rows = len(found) - 1 - from_end[slots >= 0]
    rows.sort()
    kept = torch.from_numpy(rows)
    return Entering(kept, places[kept])


class Reservoir:
    """A uniform sample of the rows seen: Vitter's algorithm R (1985), each row offered once.

    Memory is allocated once.
    """

    def __init__(self, capacity: int, form: Form, device: str) -> None:
        self.form = form
        self._rows = form.empty(capacity, device)
        self._seen = 0

    @property
    def capacity(self) -> int:
        return len(self._rows)

    @property
    def stored(self) -> Rows:
        """All that is in it; a view, not a copy."""
        return self._rows[: len(self)]

    def __len__(self) -> int:
        return min(self._seen, self.capacity)

    @property
    def bytes(self) -> int:
        """Of what is stored."""
        return len(self) * self.form.bytes

    def offer(self, targets: Tensor, tasks: Tensor, generator: torch.Generator) -> Entering:
        """Of rows that come in this order (int64 (n,) each, in main memory), those that enter,
        each with the probability that keeps the sample what it is to be.

        Only these need to be read; `put` must be given them before anything else is asked.
        """
        places = self._places(targets, tasks, generator)
        self._seen += len(targets)
        return last_in_each(places)

    def put(self, slots: Tensor, rows: Rows) -> None:
        """Store rows that enter in their slots."""
        self._rows.put(slots, rows)

    def _places(self, targets: Tensor, tasks: Tensor, generator: torch.Generator) -> Tensor:
        """The slot of each row, int64 (n,); -1: none."""
        del tasks
        order = torch.arange(self._seen, self._seen + len(targets))
        drawn = torch.rand(len(order), dtype=torch.float64, generator=generator)
        place = torch.minimum((drawn * (order + 1)).long(), order)  # as _one_of
        place = torch.where(order < self.capacity, order, place)
        return torch.where(place < self.capacity, place, -1)

    def state(self) -> dict[str, Tensor]:
        return self.stored.state() | {"seen": torch.tensor(self._seen)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError: a state that no buffer of this size can have."""
        stored, seen = len(state["targets"]), int(state["seen"])
        if stored != min(seen, self.capacity) or seen >= 1 << 62:
            raise ValueError(f"a buffer of {self.capacity} places holds {stored} of {seen} rows")
        self._rows.fill(state)
        self._seen = seen


def draw_slots(stored: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of `stored` places, int64, without repeats as far as there are enough.

    Raises:
        ValueError: nothing is stored.
    """
    if not stored:
        raise ValueError("the buffer is empty")
    order = [torch.randperm(stored, generator=generator) for _ in range(-(-count // stored))]
    return torch.cat(order)[:count]


def _one_of(count: int, number: float) -> int:
    """0 .. count - 1, of a number in [0, 1)."""
    return min(int(number * count), count - 1)  # lest rounding gives count


Kind = tuple[int, int]
"""(task, target): a class, in every scenario."""


class Balanced(Reservoir):
    """As equal a number of rows of each class as there were, uniform within a class.

    Class-balancing reservoir sampling (Chrysakis & Moens, "Online Continual
    Learning from Imbalanced Data", ICML 2020, algorithm 1): a row of a class
    that never was the largest takes the place of one of the largest; a row of
    another enters as in a reservoir of its class.
    """

    def __init__(self, capacity: int, form: Form, device: str) -> None:
        super().__init__(capacity, form, device)
        self._slots: dict[Kind, list[int]] = {}
        self._met: dict[Kind, int] = {}
        self._full: set[Kind] = set()

    def _places(self, targets: Tensor, tasks: Tensor, generator: torch.Generator) -> Tensor:
        # Three numbers a row, of which some are not needed: one call is cheaper than many.
        drawn = torch.rand(len(targets), 3, dtype=torch.float64, generator=generator).tolist()
        kinds = zip(tasks.tolist(), targets.tolist(), strict=True)
        largest: list[Kind] = []
        places = []
        for order, (kind, numbers) in enumerate(zip(kinds, drawn, strict=True), self._seen):
            self._met[kind] = self._met.get(kind, 0) + 1
            mine = self._slots.setdefault(kind, [])
            if order < self.capacity:
                mine.append(order)
                places.append(order)
                continue
            if not largest:
                largest = self._find_largest()
            if kind in self._full:
                place = _one_of(self._met[kind], numbers[0])
                places.append(mine[place] if place < len(mine) else -1)
                continue
            theirs = self._slots[largest[_one_of(len(largest), numbers[1])]]
            mine.append(theirs.pop(_one_of(len(theirs), numbers[2])))
            places.append(mine[-1])
            largest = []  # one has fewer now, another more
        return torch.tensor(places, dtype=torch.int64)

    def _find_largest(self) -> list[Kind]:
        """The classes with the most slots, which from now on are full."""
        most = max(len(slots) for slots in self._slots.values())
        largest = sorted(kind for kind, slots in self._slots.items() if len(slots) == most)
        self._full.update(largest)
        return largest

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
        if sorted(state["slots"].tolist()) != list(range(len(self))):
            raise ValueError("the places of the classes are not those that are filled")
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
