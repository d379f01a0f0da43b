"""Latent Generative Replay (LGR), hard targets.

Paper: Stoychev, Churamani & Gunes, "Latent Generative Replay for
Resource-Efficient Continual Learning of Facial Expressions", Algorithm 1.
Idea: no real row is kept.  A VAE learns the latents; when a new task comes,
its frozen copy draws latents of the old ones, and the frozen copy of the old
top labels them, once for every head it has.  Top and VAE take turns, one step
each an iteration, and both start from where the last task left them (as the
published runs do; Algorithm 1 as printed trains fresh networks, generator
first).  At task t the loss is 1/t * current + (1 - 1/t) * replayed, for both.
Cost: VAE of 1.78 M parameters (7.1 MB) and frozen copies of VAE and top
(9.2 MB) whatever the number of tasks; about four times the arithmetic of
`none`.
Bias: the VAE tends to draw the mean latent, and the arg-max of its label is
then the majority class: hard targets can teach a head to answer only that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cache.errors import Refused
from stages.train.losses import hard_replay, vae_losses
from stages.train.networks import VAE, Top
from stages.train.strategy import (
    Setup,
    TopLearner,
    adam,
    frozen_copy,
    named,
    named_optimiser,
    parameter_bytes,
    restore,
    restore_optimiser,
)
from stages.train.view import TaskView


@dataclass(frozen=True)
class Options:
    generator_units: int = 200
    """Units of each hidden layer of the VAE."""
    z: int = 100
    """Length of the VAE's code."""

    def __post_init__(self) -> None:
        if self.generator_units < 1 or self.z < 1:
            raise ValueError("generator_units and z must be at least 1")


ReplayLoss = Callable[[Tensor, Tensor, range, range], Tensor]
"""(new logits, old logits, old head, new head) -> scalar."""


class Method(TopLearner):
    def __init__(
        self, setup: Setup, options: Options, replay_loss: ReplayLoss = hard_replay
    ) -> None:
        super().__init__(setup)
        if not setup.unit_range:
            raise Refused(
                "This cache's latents do not lie in [0, 1], which the generator's sigmoid output "
                "needs. Extract with --activation sigmoid."
            )
        self._replay_loss = replay_loss

        def new_vae() -> VAE:
            return VAE(setup.dim, setup.random_cpu("vae"), options.generator_units, options.z).to(
                setup.device
            )

        self.vae, self.old_vae = new_vae(), new_vae()
        self.old_top = Top(setup.dim, setup.classes, setup.random_cpu("top")).to(setup.device)
        self.vae_optimiser = adam(self.vae, setup.lr)
        self._noise = setup.random("vae noise")
        self._old_heads: tuple[range, ...] = ()

    def learn(self, task: TaskView) -> None:
        share = 1 / (task.index + 1)
        draws = self.setup.random("replays", task.index)
        for batch in self.iterate(task):
            if not self._old_heads:
                (logits,) = self.train_logits(batch.latents)
                solver = self.real_loss(logits, batch, task)
                generator = vae_losses(self.vae, batch.latents, self._noise).mean()
            else:
                drawn = self.old_vae.sample(self.setup.batch_size, draws)
                logits, drawn_logits = self.train_logits(batch.latents, drawn)
                replay = self._replay(drawn, drawn_logits, task)
                solver = share * self.real_loss(logits, batch, task) + (1 - share) * replay
                both = vae_losses(self.vae, torch.cat([batch.latents, drawn]), self._noise)
                real, again = torch.split(both, [len(batch.latents), len(drawn)])
                generator = share * real.mean() + (1 - share) * again.mean()
            self.step(solver)
            self.vae_optimiser.zero_grad(set_to_none=True)
            generator.backward()  # type: ignore[no-untyped-call]
            self.vae_optimiser.step()
        frozen_copy(self.vae, self.old_vae)
        frozen_copy(self.top, self.old_top)
        self._old_heads = self.setup.heads[: task.index + 1]

    def _replay(self, drawn: Tensor, new: Tensor, task: TaskView) -> Tensor:
        """What the new top should still say about drawn latents (`new` is what it says):
        mean over the old heads (task-incremental), or all old classes as one head
        (class-incremental)."""
        with torch.no_grad():
            old = self.old_top(drawn)
        if self.setup.scenario == "task":
            losses = [self._replay_loss(new, old, head, head) for head in self._old_heads]
            return torch.stack(losses).mean()
        return self._replay_loss(new, old, range(self._old_heads[-1].stop), task.seen)

    def state(self) -> dict[str, Tensor]:
        own = (
            named("vae", self.vae) | named("old_vae", self.old_vae) | named("old_top", self.old_top)
        )
        moments = named_optimiser("vae_optimiser", self.vae_optimiser)
        more = {"noise": self._noise.get_state(), "learnt": torch.tensor(len(self._old_heads))}
        return super().state() | own | moments | more

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        for name in ("vae", "old_vae", "old_top"):
            restore(name, getattr(self, name), state)
        restore_optimiser("vae_optimiser", self.vae_optimiser, state)
        self._noise.set_state(state["noise"])
        self._old_heads = self.setup.heads[: int(state["learnt"])]

    def memory(self) -> dict[str, int]:
        return {
            "generator": parameter_bytes(self.vae),
            "snapshots": parameter_bytes(self.old_vae) + parameter_bytes(self.old_top),
        }
