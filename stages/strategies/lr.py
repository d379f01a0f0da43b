"""Latent Replay (LR): store real latents, rehearse them.

Paper: Pellegrini et al. 2020, as the LGR paper compares it (section IV-C,
Table I: 1000 latents).
Idea: at task t > 1 each batch of B current rows is joined by B stored ones:
loss = 1/t * current + (1 - 1/t) * replayed.
Cost: buffer of S x (4 D + 16) bytes (S = 1000, D = 4096: 16.4 MB); twice the
rows of `none` in each step of the top.
Bias: the LGR code teaches every replayed row to the first head and keeps the
latest rows rather than a uniform sample; here each row is scored on its own
head, and the buffer is a true reservoir over distinct rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.train.buffer import POLICIES, Policy
from stages.train.strategy import Setup, TopLearner
from stages.train.view import TaskView


@dataclass(frozen=True)
class Options:
    buffer_size: int = 1000
    """Latents that are stored."""
    buffer_policy: Policy = "reservoir"
    """reservoir: a uniform sample of all rows seen; balanced: as many of each class."""

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ValueError("buffer_size must be at least 1")


class Method(TopLearner):
    def __init__(self, setup: Setup, options: Options) -> None:
        super().__init__(setup)
        self.buffer = POLICIES[options.buffer_policy](options.buffer_size, setup.dim, setup.device)

    def learn(self, task: TaskView) -> None:
        setup = self.setup
        replays = setup.random_cpu("replays", task.index)
        share = 1 / (task.index + 1)
        for batch in self.iterate(task):
            if not len(self.buffer):
                (logits,) = self.train_logits(batch.latents)
                self.step(self.real_loss(logits, batch, task))
                continue
            stored = self.buffer.sample(setup.batch_size, replays)
            logits, old_logits = self.train_logits(batch.latents, stored.latents)
            current = self.real_loss(logits, batch, task)
            self.step(share * current + (1 - share) * self.real_loss(old_logits, stored, task))
        slots = setup.random_cpu("slots", task.index)
        for positions in torch.split(torch.arange(len(task)), 1024):
            self.buffer.offer(task.take(positions), slots)

    def state(self) -> dict[str, Tensor]:
        stored = {f"buffer.{name}": value for name, value in self.buffer.state().items()}
        return super().state() | stored

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        start = "buffer."
        self.buffer.load_state(
            {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        )

    def memory(self) -> dict[str, int]:
        return {"buffer": self.buffer.bytes}
