"""The contract between the loop and a strategy, and what the simple ones share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from cache.errors import Refused
from stages.train.adam import Adam
from stages.train.capture import Captured, CudaGraphs, Graphs
from stages.train.losses import head_mask, masked_cross_entropy, penalties
from stages.train.networks import Top, macs
from stages.train.scenario import Name, Scenario
from stages.train.seeds import generator
from stages.train.state import named, named_optimiser, restore, restore_optimiser
from stages.train.view import Batch, TaskView
from stages.train.watch import Watch

Column = Literal["latents", "crops"]
Schedule = Literal["sequential", "cumulative", "joint"]
T = TypeVar("T")

Losses = dict[str, Tensor]
"""Of one step, by name, without gradients."""

_CHECK_EVERY = 50
"""Iterations between two looks at the validation rows, with early stopping."""


@dataclass(frozen=True)
class Images:
    """How crops are seen by a strategy that works on images, and the root that it needs."""

    side: int
    """Pixels of a crop's side."""
    size: int
    """P: values of an image, 3 S S, or S S where the root reads grey."""
    pixels: Callable[[Tensor], Tensor]
    """uint8 crops (B, S, S, 3) -> float32 (B, P) in [0, 1]."""
    root: Callable[[Tensor], Tensor]
    """float32 (B, P) in [0, 1] -> latents (B, D), those of the cache for its own crops."""
    macs: int
    """Multiply-accumulates of the root for one image."""

    def pictures(self, values: Tensor) -> Tensor:
        """float (B, P) in [0, 1], a colour after the other -> uint8 (B, S, S, 3); grey ones in
        three equal colours."""
        planes = values.reshape(-1, self.size // self.side**2, self.side, self.side)
        rounded = planes.mul(255).round().clamp(0, 255).to(torch.uint8)
        return rounded.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)


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
    """Latents lie in [0, 1]: a generator of them ends in a sigmoid."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: what the LGR code does, where that changes results."""
    early_stopping: int = 0
    """Checks without a better validation accuracy after which a task is left; 0: never."""
    images: Images | None = None
    """For strategies whose columns name crops."""
    watch: Watch = field(default_factory=Watch)

    @property
    def classes(self) -> int:
        """Outputs of the network."""
        return max(head.stop for head in self.heads)

    def random(self, *name: object) -> torch.Generator:
        """A random stream of this run, on the training device."""
        return generator(self.seed, *name, device=self.device)

    def random_cpu(self, *name: object) -> torch.Generator:
        return generator(self.seed, *name)

    def need_images(self) -> Images:
        """Raises Refused: there are none."""
        if self.images is None:
            raise Refused("This strategy works on images: name their cache with --crops.")
        return self.images


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
        """All that is needed to go on after a task, as named tensors; not copied, so that who
        keeps them beyond the next `learn` must copy them."""

    def load_state(self, state: dict[str, Tensor]) -> None: ...

    def model(self) -> dict[str, Tensor]:
        """The part of the state that `logits` needs."""

    def memory(self) -> dict[str, int]:
        """Bytes kept between tasks to fight forgetting, by kind: buffer, generator, snapshots."""

    def most_memory(self) -> dict[str, int]:
        """What `memory` can grow to, whatever comes."""

    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of an iteration once there is something to replay, by network:
        top, generator, root.  A step counts three times its forward pass (backward: two)."""


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
        self.optimiser = Adam(self.top.parameters(), setup.lr)
        self._dropout = setup.random("dropout")
        device = torch.device(setup.device)
        heads = head_mask(setup.heads, setup.classes, device)
        if setup.scenario != "task":  # all outputs seen so far
            heads = heads.cumsum(0) > 0
        self._penalties = penalties(heads)
        # A buffer as released is filled row by row, and crops come from main memory.
        recorded = setup.protocol == "corrected" and "crops" not in self.columns
        self.graphs: Graphs | None = (
            CudaGraphs(device) if device.type == "cuda" and recorded else None
        )

    def iterate(self, task: TaskView) -> Iterator[Batch]:
        """The batches of a task, until it is learnt or, with early stopping, gets no better."""
        watch = self.setup.watch
        better = Improvement(self.setup.early_stopping)
        for k, batch in enumerate(self.batches(task), 1):
            yield batch
            watch.tick()
            if self.setup.early_stopping and k % _CHECK_EVERY == 0:
                with watch.phase("evaluation"):
                    accuracy = self._held_out_accuracy(task)
                if not better.than_before(accuracy):
                    watch.event("stopped early", task=task.index + 1, iteration=k)
                    return

    def batches(self, task: TaskView) -> Iterator[Batch]:
        """As many as the task has iterations; the same ones each time they are asked for."""
        setup = self.setup
        stream = setup.random_cpu("batches", task.index, len(task.tasks))
        batches = task.batches(self.iterations(task), setup.batch_size, stream)
        while True:
            with setup.watch.phase("load"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def iterations(self, task: TaskView) -> int:
        """In which a task is learnt."""
        del task
        return self.setup.iters

    def _held_out_accuracy(self, task: TaskView) -> float:
        right, rows = torch.zeros((), dtype=torch.int64, device=self.setup.device), 0
        for held in task.held_out():
            answers = (self.logits(held.latents) + self._penalty(held.tasks, task)).argmax(1)
            right += (answers == held.targets).sum()
            rows += len(answers)
        if not rows:
            raise Refused("--early-stopping needs rows to look at: add --validation 0.1.")
        return int(right) / rows

    def captured(
        self, step: Callable[..., T], streams: Sequence[torch.Generator]
    ) -> Callable[..., T]:
        """A step of one task, recorded where that can be; `streams` are all that it draws from."""
        if self.graphs is None:
            return step
        watch = self.setup.watch
        return Captured(
            step, streams, self.graphs, lambda why: watch.event("not recorded", why=why)
        )

    def real_step(self, task: TaskView) -> Callable[[Tensor, Tensor, Tensor], Losses]:
        """A step of the top on real rows alone: latents (B, D), targets (B,), tasks (B,)."""

        def step(latents: Tensor, targets: Tensor, tasks: Tensor) -> Losses:
            logits = self.top(latents, self._dropout)
            return {"solver": self.step(self.real_loss(logits, targets, tasks, task))}

        return self.captured(step, [self._dropout])

    def split_logits(self, latents: Tensor, real: int) -> tuple[Tensor, Tensor]:
        """The top's answers with dropout to `real` real rows and to the replayed ones after them:
        (B, D) -> (real, classes), (B - real, classes)."""
        new, old = torch.split(self.top(latents, self._dropout), [real, len(latents) - real])
        return new, old

    def real_loss(self, logits: Tensor, targets: Tensor, tasks: Tensor, task: TaskView) -> Tensor:
        """Cross entropy on real rows: each on its own head (task-incremental), or among
        all outputs seen (class- and domain-incremental).

        logits (B, classes), targets and tasks int64 (B,).  The LGR code scores every stored
        row on the first head; here each row carries its task.
        """
        return masked_cross_entropy(logits, targets, self._penalty(tasks, task))

    def _penalty(self, tasks: Tensor, task: TaskView) -> Tensor:
        """Minus infinity for outputs that may not answer: (B, classes) or (classes,)."""
        return self._penalties[tasks if self.setup.scenario == "task" else task.index]

    def step(self, loss: Tensor) -> Tensor:
        """Of the top; gives the loss back without its gradient."""
        return descend(self.optimiser, loss)

    def tell(self, losses: Losses) -> None:
        for name, value in losses.items():
            self.setup.watch.loss(name, value)

    @torch.no_grad()
    def logits(self, latents: Tensor) -> Tensor:
        out: Tensor = self.top(latents)
        return out

    def state(self) -> dict[str, Tensor]:
        moments = named_optimiser("optimiser", self.optimiser)
        return self.model() | moments | {"dropout": self._dropout.get_state()}

    def model(self) -> dict[str, Tensor]:
        return named("top", self.top)

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._dropout.set_state(state["dropout"])
        restore("top", self.top, state)
        restore_optimiser("optimiser", self.optimiser, state)

    def memory(self) -> dict[str, int]:
        return {}

    def most_memory(self) -> dict[str, int]:
        return self.memory()

    def macs(self) -> dict[str, int]:
        return {"top": self.setup.batch_size * self.top_step_macs()}

    def top_step_macs(self) -> int:
        """Of one row in a step of the top."""
        return 3 * macs(self.top)


def descend(optimiser: Adam, loss: Tensor) -> Tensor:
    """A step of gradient descent; gives the loss back without its gradient."""
    optimiser.zero_grad()  # a recording that failed may have left some
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    optimiser.zero_grad()  # their memory is the next batch's
    return loss.detach()


class Improvement:
    """Whether a figure has lately become better."""

    def __init__(self, patience: int) -> None:
        self._patience, self._best, self._since = patience, -math.inf, 0

    def than_before(self, value: float) -> bool:
        """False once there were `patience` values since the best."""
        self._since = 0 if value > self._best else self._since + 1
        self._best = max(self._best, value)
        return self._since < self._patience
