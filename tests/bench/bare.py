"""Training loops without any bookkeeping: tensors, networks, torch's fused Adam, nothing else.

Each begins where a strategy stands and takes the same steps with the same random streams, so that
what comes out can be compared.  Task-incremental, heads of one width, a full buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.train.scenario import Scenario
from stages.train.view import Data

Rows = tuple[Tensor, Tensor]
"""Latents (B, D), labels within their head (B,)."""


class Bare:
    """The last of `learnt` tasks once more; joint: all of them."""

    def __init__(self, method: Any, data: Data, scenario: Scenario, learnt: int) -> None:
        self.method, self.setup = method, method.setup
        self.top, self.dropout = method.top, method._dropout
        self.adam = adam_of(self.top, method.optimiser)
        self.width = len(scenario.tasks[0].columns)
        self.index = learnt - 1
        last = scenario.tasks[self.index]
        self.tasks = scenario.tasks[:learnt] if method.schedule == "joint" else (last,)
        rows = [torch.from_numpy(task.train_rows) for task in self.tasks]
        self.x = data.latents[torch.cat(rows)]
        self.y = data.targets[torch.cat(rows)] % self.width
        self.of = torch.cat(
            [torch.full((len(r),), t.index) for r, t in zip(rows, self.tasks, strict=True)]
        )
        self.head = slice(last.columns.start, last.columns.stop)
        self.share = 1 / learnt

    def places(self) -> Iterator[Tensor]:
        setup, stream = self.setup, self.setup.random_cpu("batches", self.index, len(self.tasks))
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(setup.iters * len(self.tasks)):
            if len(order) < setup.batch_size:
                more = torch.randperm(len(self.x), generator=stream)
                order = torch.cat([order, more])
            yield order[: setup.batch_size]
            order = order[setup.batch_size :]

    def batches(self) -> Iterator[Rows]:
        for places in self.places():
            yield self.x.index_select(0, places), self.y[places]

    def logits(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.top.hidden(x))
        mask = torch.empty_like(hidden).bernoulli_(0.5, generator=self.dropout).div_(0.5)
        found: Tensor = self.top.output(hidden * mask)
        return found


def adam_of(network: nn.Module, ours: Any) -> torch.optim.Adam:
    """Torch's, standing where ours does."""
    found = torch.optim.Adam(network.parameters(), lr=ours.lr, fused=True)
    groups = found.state_dict()["param_groups"]
    found.load_state_dict({"state": ours.state, "param_groups": groups})
    return found


def step(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


def none(b: Bare) -> None:
    for x, y in b.batches():
        step(b.adam, functional.cross_entropy(b.logits(x)[:, b.head], y))


def joint(b: Bare) -> None:
    rows = torch.arange(b.setup.batch_size)
    for places in b.places():
        heads = b.logits(b.x.index_select(0, places)).view(len(places), -1, b.width)
        step(b.adam, functional.cross_entropy(heads[rows, b.of[places]], b.y[places]))


def lr(b: Bare) -> None:
    stored, stream = b.method._memory.stored, b.setup.random_cpu("replays", b.index)
    values, labels, size = stored.values, stored.targets % b.width, b.setup.batch_size
    for x, y in b.batches():
        slots = torch.randperm(len(values), generator=stream)[:size]
        logits = b.logits(torch.cat([x, values.index_select(0, slots)]))
        replayed = functional.cross_entropy(logits[size:, : b.width], labels[slots])  # one old head
        loss = b.share * functional.cross_entropy(logits[:size, b.head], y)
        step(b.adam, loss + (1 - b.share) * replayed)


def lgr(b: Bare) -> None:
    generative(b, lambda new, old: functional.cross_entropy(new, old.argmax(1)))


def lgr_d(b: Bare) -> None:
    def soft(new: Tensor, old: Tensor) -> Tensor:
        return 4 * functional.cross_entropy(new / 2, torch.softmax(old / 2, 1))

    generative(b, soft)


def generative(b: Bare, replay_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Second task: one old head, and as many drawn rows as real ones weigh as much."""
    vae, noise = b.method.vae, b.method._noise
    adam, stream = adam_of(vae, b.method.vae_optimiser), b.setup.random("replays", b.index)
    size, old = b.setup.batch_size, slice(0, b.width)
    for x, y in b.batches():
        with torch.no_grad():
            z = torch.empty(size, vae.z).normal_(generator=stream)
            drawn = torch.sigmoid(b.method.old_vae.decode_raw(z))
            answers = b.method.old_top(drawn)[:, old]
        both = torch.cat([x, drawn])
        logits = b.logits(both)
        loss = b.share * functional.cross_entropy(logits[:size, b.head], y)
        step(b.adam, loss + (1 - b.share) * replay_loss(logits[size:, old], answers))
        mean, log_variance = vae.encode(both)
        code = (
            torch.empty_like(mean).normal_(generator=noise) * torch.exp(0.5 * log_variance) + mean
        )
        misfit = functional.binary_cross_entropy_with_logits(vae.decode_raw(code), both)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        step(adam, misfit + divergence / both.shape[1])


LOOPS = {"none": none, "joint": joint, "lr": lr, "lgr": lgr, "lgr+d": lgr_d}
