"""What replaying stored rows (nr, lr) has in common.

At task t > 1 each batch of B current rows is joined by B stored ones:
loss = 1/t * current + (1 - 1/t) * replayed (LGR, section IV-C and its code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stages.train.buffer import POLICIES, Form, Policy, Reservoir, Rows, draw_slots
from stages.train.released import Latest
from stages.train.replayed import Replayed
from stages.train.strategy import Losses, Setup, TopLearner
from stages.train.view import Batch, TaskView, sent

_READ = 1024
"""Rows that enter the buffer and are read at a time."""
_DRAWN = 32
"""Iterations whose replays are drawn at a time."""


@dataclass(frozen=True)
class RehearsalOptions:
    buffer_size: int = 1000
    """Rows that are stored."""
    buffer_policy: Policy = "reservoir"
    """reservoir: a uniform sample of all rows seen; balanced: as many of each class."""

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ValueError("buffer_size must be at least 1")


class Memory(Protocol):
    """What is stored, and when a row enters it."""

    @property
    def stored(self) -> Rows: ...

    @property
    def bytes(self) -> int: ...

    def saw(self, rows: Rows, stream: torch.Generator) -> None:
        """After each step, its rows."""

    def close(
        self, task: TaskView, stored_as: Callable[[Batch], Rows], stream: torch.Generator
    ) -> None:
        """After a task."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: dict[str, Tensor]) -> None: ...


class Sample:
    """A sample of all distinct rows seen: each is offered to the buffer once, after its task."""

    def __init__(self, buffer: Reservoir) -> None:
        self._buffer = buffer
        self.state, self.load_state = buffer.state, buffer.load_state

    @property
    def stored(self) -> Rows:
        return self._buffer.stored

    @property
    def bytes(self) -> int:
        return self._buffer.bytes

    def saw(self, rows: Rows, stream: torch.Generator) -> None:
        """Nothing: how often a row was drawn must not decide whether it is kept."""

    def close(
        self, task: TaskView, stored_as: Callable[[Batch], Rows], stream: torch.Generator
    ) -> None:
        entering = self._buffer.offer(*task.answers(), stream)
        parts = zip(
            torch.split(entering.rows, _READ), torch.split(entering.slots, _READ), strict=True
        )
        for positions, slots in parts:
            self._buffer.put(slots, stored_as(task.take(positions)))


class Rehearsal(TopLearner):
    """`stored_as` and `latents_of` say what is stored; here: latents."""

    def __init__(self, setup: Setup, options: RehearsalOptions, form: Form) -> None:
        super().__init__(setup)
        self._options, self._form = options, form
        size = options.buffer_size
        self._memory: Memory
        if setup.protocol == "released":
            self._memory = Latest(size, form, setup)
        else:
            self._memory = Sample(POLICIES[options.buffer_policy](size, form, setup.device))

    def stored_as(self, batch: Batch) -> Rows:
        """What the buffer keeps of a batch."""
        return Rows(batch.latents, batch.targets, batch.tasks)

    def latents_of(self, values: Tensor) -> Tensor:
        """Stored (N, ...) -> latents float32 (N, D)."""
        return values

    def learn(self, task: TaskView) -> None:
        setup, watch = self.setup, self.setup.watch
        arrivals = setup.random_cpu("arrivals", task.index)
        stored = self._memory.stored
        # The buffer rests while a task is learnt and the root is frozen, so that one pass
        # gives what a pass in each step would.
        with watch.phase("replay"):
            latents = self.latents_of(stored.values)
        slots = self._slots(len(stored), task.index)
        step = self._step(task, stored, latents) if len(stored) else self.real_step(task)
        for batch in self.iterate(task):
            with watch.phase("solver"):
                self.tell(step(batch.latents, batch.targets, batch.tasks, *next(slots)))
                self._memory.saw(self.stored_as(batch), arrivals)
        with watch.phase("replay"):
            self._memory.close(task, self.stored_as, setup.random_cpu("slots", task.index))

    def _slots(self, stored: int, task: int) -> Iterator[tuple[Tensor, ...]]:
        """Which stored rows each iteration replays, int64 (B,), on the device; nothing where
        nothing is stored.  Many are drawn at a time, so that a GPU need not wait for each."""
        setup = self.setup
        stream, device = setup.random_cpu("replays", task), torch.device(setup.device)
        while stored:
            drawn = [draw_slots(stored, setup.batch_size, stream) for _ in range(_DRAWN)]
            yield from ((slots,) for slots in sent(torch.stack(drawn), device))
        while True:
            yield ()

    def _step(self, task: TaskView, stored: Rows, latents: Tensor) -> Callable[..., Losses]:
        """`latents` (N, D) of what is stored."""
        share = 1 / (task.index + 1)

        def step(fresh: Tensor, targets: Tensor, tasks: Tensor, slots: Tensor) -> Losses:
            both = fresh.new_empty(len(fresh) + len(slots), fresh.shape[1])
            both[: len(fresh)] = fresh
            torch.index_select(latents, 0, slots, out=both[len(fresh) :])
            new, old = self.split_logits(both, len(fresh))
            current = self.real_loss(new, targets, tasks, task)
            replayed = self.real_loss(old, stored.targets[slots], stored.tasks[slots], task)
            loss = self.step(share * current + (1 - share) * replayed)
            return {"replay": replayed.detach(), "solver": loss}

        return self.captured(step, [self._dropout])

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        stored = self._memory.stored
        order = torch.randperm(len(stored), generator=stream, device=stream.device)[:count]
        for slots in torch.split(order, self.setup.batch_size):
            some = stored[slots.to(stored.targets.device)]
            latents = self.latents_of(some.values)
            yield Replayed("stored", latents, some.targets[:, None], some.tasks)

    def state(self) -> dict[str, Tensor]:
        stored = {f"buffer.{name}": value for name, value in self._memory.state().items()}
        return super().state() | stored

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError: a stored row is of no class of its task."""
        super().load_state(state)
        start = "buffer."
        self._memory.load_state(
            {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        )
        stored = self._memory.stored
        heads = self.setup.heads
        for task, target in zip(stored.tasks.tolist(), stored.targets.tolist(), strict=True):
            if not 0 <= task < len(heads) or target not in heads[task]:
                raise ValueError(f"a stored row has target {target} of task {task}")

    def memory(self) -> dict[str, int]:
        return {"buffer": self._memory.bytes}

    def most_memory(self) -> dict[str, int]:
        return {"buffer": self._options.buffer_size * self._form.bytes}

    def macs(self) -> dict[str, int]:
        return {"top": 2 * self.setup.batch_size * self.top_step_macs()}
