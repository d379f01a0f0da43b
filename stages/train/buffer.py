"""Stored real rows, latents or crops: a sample of all rows seen, of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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

    def put(self, slot: int, other: Rows, k: int) -> None:
        """Copy row `k` of `other` into the slot: nothing else of `other` stays alive."""
        self.values[slot] = other.values[k]
        self.targets[slot] = other.targets[k]
        self.tasks[slot] = other.tasks[k]

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("values", "targets", "tasks")}

    def fill(self, state: dict[str, Tensor]) -> int:
        """From the first slot on; how many there were."""
        stored = len(state["targets"])
        for name in ("values", "targets", "tasks"):
            getattr(self, name)[:stored] = state[name]
        return stored


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

    def offer(self, rows: Rows, generator: torch.Generator) -> None:
        """Let each row in with the probability that keeps the sample what it is to be."""
        targets = rows.targets.tolist()
        for k, task in enumerate(rows.tasks.tolist()):
            slot = self._slot((task, targets[k]), generator)
            self._seen += 1
            if slot is not None:
                self._rows.put(slot, rows, k)

    def _slot(self, kind: tuple[int, int], generator: torch.Generator) -> int | None:
        """Where a row of this kind, (task, target), goes; None: nowhere."""
        del kind
        if self._seen < self.capacity:
            return self._seen
        slot = int(torch.randint(self._seen + 1, (1,), generator=generator))
        return slot if slot < self.capacity else None

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
