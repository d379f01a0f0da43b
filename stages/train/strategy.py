"""The contract between the loop and a strategy, and what the simple ones share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from stages.train.losses import head_mask, masked_cross_entropy
from stages.train.networks import Top
from stages.train.scenario import Name, Scenario
from stages.train.seeds import generator
from stages.train.view import Batch, TaskView

Column = Literal["latents", "crops"]
Schedule = Literal["sequential", "cumulative", "joint"]


@dataclass(frozen=True)
class Setup:
    """What every strategy is given: plain values, no configuration object."""

    dim: int
    """Length of a latent."""
    heads: tuple[range, ...]
    """Outputs of each task."""
    scenario: Name
    iters: int
    """Iterations a task."""
    batch_size: int
    lr: float
    seed: int
    device: str
    unit_range: bool
    """Latents lie in [0, 1], which a generator with a sigmoid output needs."""
    tick: Callable[[], None]
    """Called after each iteration."""

    @property
    def classes(self) -> int:
        """Outputs of the network."""
        return max(head.stop for head in self.heads)

    def random(self, *name: object) -> torch.Generator:
        """A random stream of this run, on the training device."""
        return generator(self.seed, *name, device=self.device)

    def random_cpu(self, *name: object) -> torch.Generator:
        return generator(self.seed, *name)


class Strategy(Protocol):
    """How a task is learnt without forgetting the ones before."""

    columns: ClassVar[tuple[Column, ...]]
    """What it reads."""
    schedule: ClassVar[Schedule]
    """sequential: `learn` is called for each task; cumulative: for each, with the tasks before
    it; joint: once, with all tasks."""

    def learn(self, task: TaskView) -> None: ...

    def logits(self, latents: Tensor) -> Tensor:
        """float (B, D) -> (B, classes), without dropout or gradient."""

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on, as named tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None: ...

    def memory(self) -> dict[str, int]:
        """Bytes kept between tasks to fight forgetting, by kind: buffer, generator, snapshots."""


def heads_of(scenario: Scenario) -> tuple[range, ...]:
    return tuple(task.columns for task in scenario.tasks)


class TopLearner:
    """A top, its Adam optimiser and the loss on real rows: the trunk of the iterative strategies.

    The optimiser lives as long as the strategy: warm start from task to task,
    as in the LGR code.
    """

    columns: ClassVar[tuple[Column, ...]] = ("latents",)
    schedule: ClassVar[Schedule] = "sequential"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.top = Top(setup.dim, setup.classes, setup.random_cpu("top")).to(setup.device)
        self.optimiser = adam(self.top, setup.lr)
        self._dropout = setup.random("dropout")
        self._own_head = head_mask(setup.heads, setup.classes, torch.device(setup.device))

    def iterate(self, task: TaskView) -> Iterator[Batch]:
        """The batches of a task."""
        setup = self.setup
        count = self.iterations(task)
        stream = setup.random_cpu("batches", task.index, len(task.tasks))
        for batch in task.batches(count, setup.batch_size, stream):
            yield batch
            setup.tick()

    def iterations(self, task: TaskView) -> int:
        """In which a task is learnt."""
        del task
        return self.setup.iters

    def train_logits(self, *latents: Tensor) -> tuple[Tensor, ...]:
        """The top's answers with dropout, one pass over all: each (B_k, D) -> (B_k, classes)."""
        together = self.top(torch.cat(latents) if len(latents) > 1 else latents[0], self._dropout)
        return torch.split(together, [len(part) for part in latents])

    def real_loss(self, logits: Tensor, batch: Batch, task: TaskView) -> Tensor:
        """Cross entropy on real rows: each on its own head (task-incremental), or among
        all outputs seen (class- and domain-incremental).

        The LGR code scores every replayed sample on the first head; here each
        row carries its task.
        """
        if self.setup.scenario == "task":
            return masked_cross_entropy(logits, batch.targets, self._own_head[batch.tasks])
        seen = torch.arange(self.setup.classes, device=logits.device) < task.seen.stop
        return masked_cross_entropy(logits, batch.targets, seen)

    def step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    @torch.no_grad()
    def logits(self, latents: Tensor) -> Tensor:
        out: Tensor = self.top(latents)
        return out

    def state(self) -> dict[str, Tensor]:
        own = named("top", self.top) | named_optimiser("optimiser", self.optimiser)
        return own | {"dropout": self._dropout.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._dropout.set_state(state["dropout"])
        restore("top", self.top, state)
        restore_optimiser("optimiser", self.optimiser, state)

    def memory(self) -> dict[str, int]:
        return {}


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with beta 0.9 and 0.999 (LGR, IV-D), in one pass over memory a step."""
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters under `prefix.`, copied."""
    return {f"{prefix}.{name}": t.detach().clone() for name, t in module.state_dict().items()}


def restore(prefix: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    start = f"{prefix}."
    module.load_state_dict(
        {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    )


def named_optimiser(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments and step counts under `prefix.<parameter>.<name>`, copied."""
    return {
        f"{prefix}.{index}.{name}": value.detach().clone()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimiser(
    prefix: str, optimiser: torch.optim.Optimizer, state: dict[str, Tensor]
) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".")
            moments.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def frozen_copy(module: nn.Module, like: nn.Module) -> nn.Module:
    """`like`, holding the parameters of `module` as they are now, without gradients.

    Parameters only: a deep copy of a network that carries its optimiser would
    copy that too (in the LGR code it does, and is counted as memory).
    """
    like.load_state_dict(module.state_dict())
    return like.requires_grad_(False)


def parameter_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
