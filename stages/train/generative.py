"""Replay of what a generator draws (dgr, lgr and their distilled forms).

A VAE learns what comes; when a new task comes, its frozen copy draws things of
the old ones, and the frozen copy of the old top labels their latents, once for
every head it has.  At task t the loss of both top and VAE is
1/t * current + (1 - 1/t) * replayed.

Algorithm 1 of the LGR paper as printed (`algorithm printed`): at each task a
fresh VAE, then a fresh top, one after the other.  As its code runs
(`interleaved`): both go on from where the last task left them, and take turns,
one step each an iteration.  The latter is the default, chosen on validation
rows (a tenth of the training rows; mean accuracy ± sd over n seeds, %):

    interleaved    printed         strategy, data, iterations a task, n
    90.1 ± 0.9     59.4 ± 2.7      lgr+d, drawn faces task-incrementally, 500, 3
    70.0 ± 6.0     58.3 ± 2.4      lgr, the same, 5 and 3
    94.8 ± 0.3     88.0 ± 8.2      lgr+d, MNIST class-incrementally 10 x 1, 1000, 2
    94.1 ± 0.1     86.8 ± 7.8      lgr, the same

A fresh top must learn all old tasks again from replays alone, in the time of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from stages.train.adam import Adam
from stages.train.losses import vae_losses
from stages.train.networks import VAE, Top, decoder_macs, macs
from stages.train.pool import Pool
from stages.train.replayed import PICTURES, Replayed
from stages.train.state import (
    frozen_copy,
    named,
    named_optimiser,
    parameter_bytes,
    restore,
    restore_optimiser,
)
from stages.train.strategy import Losses, Setup, TopLearner, descend
from stages.train.view import Batch, TaskView

_DRAWN = 256
"""Things of a pool that are drawn at a time."""
_FITTED = 512
"""Rows that are looked at together to find the scale of values that may be any."""

ReplayLoss = Callable[[Tensor, Tensor, range, range], Tensor]
"""(new logits, old logits, old head, new head) -> scalar."""


@dataclass(frozen=True)
class GeneratorOptions:
    generator_units: int = 200
    """Units of each hidden layer of the VAE."""
    z: int = 100
    """Length of the VAE's code."""
    replay_pool: int = 0
    """Draw and label so many once a task, and replay from those; 0: draw afresh each iteration."""
    algorithm: Literal["interleaved", "printed"] = "interleaved"
    """interleaved: top and VAE take turns and go on from task to task, as the LGR code; printed:
    both start anew at each task, the VAE first, as Algorithm 1 of the paper."""

    def __post_init__(self) -> None:
        if self.generator_units < 1 or self.z < 1:
            raise ValueError("generator_units and z must be at least 1")
        if self.replay_pool < 0:
            raise ValueError("replay_pool must be at least 0 (0: draw afresh)")


class GenerativeReplay(TopLearner):
    """`learnt_from` and `latents_of` say what is generated; here: latents."""

    def __init__(
        self,
        setup: Setup,
        options: GeneratorOptions,
        replay_loss: ReplayLoss,
        size: int,
        unit: bool,
    ) -> None:
        """`size`: values of a generated thing; `unit`: they lie in [0, 1]."""
        super().__init__(setup)
        self._options, self._replay_loss = options, replay_loss
        self._size, self._unit = size, unit
        self.vae, self.old_vae = self._new_vae("vae"), self._new_vae("vae")
        self.old_top = self._new_top("top")
        self.vae_optimiser = Adam(self.vae.parameters(), setup.lr)
        self._noise = setup.random("vae noise")
        self._old_heads: tuple[range, ...] = ()

    def _new_vae(self, *stream: object) -> VAE:
        options = self._options
        random = self.setup.random_cpu(*stream)
        vae = VAE(self._size, random, options.generator_units, options.z, unit=self._unit)
        return vae.to(self.setup.device)

    def _new_top(self, *stream: object) -> Top:
        setup = self.setup
        return Top(setup.dim, setup.classes, setup.random_cpu(*stream)).to(setup.device)

    def learnt_from(self, batch: Batch) -> Tensor:
        """What the generator learns of a batch, float (B, P)."""
        return batch.latents

    def latents_of(self, things: Tensor) -> Tensor:
        """Generated things (B, P) -> latents (B, D)."""
        return things

    # --- learning ---------------------------------------------------------------

    def learn(self, task: TaskView) -> None:
        if not self._old_heads:
            self._fit_range(task)
        draw = self._drawer(task)
        if self._options.algorithm == "printed":
            self._start_anew(task)
            generate, solve = self._generator_step(task), self._solver_step(task)
            for batch in self.batches(task):
                self.tell(generate(batch, draw(), None))
            draw = self._drawer(task)
            for batch in self.iterate(task):
                self.tell(solve(batch, draw())[0])
        else:
            generate, solve = self._generator_step(task), self._solver_step(task)
            for batch in self.iterate(task):
                replays = draw()
                losses, latents = solve(batch, replays)
                self.tell(losses | generate(batch, replays, latents))
        frozen_copy(self.vae, self.old_vae)
        frozen_copy(self.top, self.old_top)
        self._old_heads = self.setup.heads[: task.index + 1]

    def _fit_range(self, task: TaskView) -> None:
        """Values that may be any are learnt in the scale of the first task's."""
        if not self._unit:
            parts = torch.split(torch.arange(len(task)), _FITTED)
            self.vae.fit(self.learnt_from(task.take(positions)) for positions in parts)

    def _start_anew(self, task: TaskView) -> None:
        """Algorithm 1, line 6: initialise G_new and T_new."""
        if not self._old_heads:
            return
        fresh_vae = self._new_vae("vae", task.index)
        if not self._unit:
            fresh_vae.shift.copy_(self.vae.shift)
            fresh_vae.scale.copy_(self.vae.scale)
        self.vae.load_state_dict(fresh_vae.state_dict())
        self.top.load_state_dict(self._new_top("top", task.index).state_dict())
        self.vae_optimiser = Adam(self.vae.parameters(), self.setup.lr)
        self.optimiser = Adam(self.top.parameters(), self.setup.lr)

    def _solver_step(self, task: TaskView) -> Callable[[Batch, Pool | None], tuple[Losses, Tensor]]:
        """Gives, with the losses, the latents it has learnt: real ones, then drawn ones."""
        share = 1 / (task.index + 1)
        alone = self.real_step(task)

        def both(latents: Tensor, targets: Tensor, tasks: Tensor, answers: Tensor) -> Losses:
            real, drawn = self.split_logits(latents, len(targets))
            replay = self._replay(answers, drawn, task)
            current = self.real_loss(real, targets, tasks, task)
            loss = self.step(share * current + (1 - share) * replay)
            return {"replay": replay.detach(), "solver": loss}

        with_replays = self.captured(both, [self._dropout])

        def solve(batch: Batch, replays: Pool | None) -> tuple[Losses, Tensor]:
            with self.setup.watch.phase("solver"):
                of_batch = batch.targets, batch.tasks
                if replays is None:
                    return alone(batch.latents, *of_batch), batch.latents
                latents = torch.cat([batch.latents, replays.latents])
                return with_replays(latents, *of_batch, replays.answers), latents

        return solve

    def _generator_step(
        self, task: TaskView
    ) -> Callable[[Batch, Pool | None, Tensor | None], Losses]:
        """To be given the latents that the solver has learnt, if it has."""
        share = 1 / (task.index + 1)

        def step(things: Tensor) -> Losses:
            each = vae_losses(self.vae, things, self._noise)
            if self._old_heads:
                new, old = torch.split(each, [self.setup.batch_size] * 2)
                loss = share * new.mean() + (1 - share) * old.mean()
            else:
                loss = each.mean()
            return {"generator": descend(self.vae_optimiser, loss)}

        captured = self.captured(step, [self._noise])

        def generate(batch: Batch, replays: Pool | None, latents: Tensor | None) -> Losses:
            with self.setup.watch.phase("generator"):
                return captured(self._things(batch, replays, latents))

        return generate

    def _things(self, batch: Batch, replays: Pool | None, latents: Tensor | None) -> Tensor:
        """What the generator learns: of a batch, then of what was drawn, (B, P).  Here they are
        the latents, which are at hand where the solver has learnt them."""
        if latents is not None:
            return latents
        real = self.learnt_from(batch)
        return real if replays is None else torch.cat([real, self._drawn_things(replays)])

    def _drawn_things(self, replays: Pool) -> Tensor:
        """(B, P)."""
        return replays.latents

    def _replay(self, old: Tensor, new: Tensor, task: TaskView) -> Tensor:
        """What the new top should still say about what was drawn (`new` is what it says):
        mean over the old heads (task-incremental), or all old classes as one head."""
        if self.setup.scenario != "task":
            return self._replay_loss(new, old, range(self._old_heads[-1].stop), task.seen)
        found = new.new_zeros(())
        for width, neighbours in groupby(self._old_heads, len):  # one width: all at once
            heads = list(neighbours)
            columns = slice(heads[0].start, heads[-1].stop)
            mine, theirs = (t[:, columns].reshape(len(t), -1, width) for t in (new, old))
            loss = self._replay_loss(mine, theirs, range(width), range(width))
            found = found + loss * (len(heads) / len(self._old_heads))
        return found

    # --- what is replayed -------------------------------------------------------

    def _drawer(self, task: TaskView) -> Callable[[], Pool | None]:
        """Gives the replays of one iteration after the other; None at the first task."""
        if not self._old_heads:
            return lambda: None
        count, stream = self.setup.batch_size, self.setup.random("replays", task.index)
        watch, size = self.setup.watch, self._options.replay_pool
        if size:
            with watch.phase("replay"):
                pool = self._draw(size, stream)
            places = self.setup.random("places", task.index)
            device = pool.codes.device
            return lambda: pool[torch.randint(size, (count,), generator=places, device=device)]
        draw = self.captured(lambda: self._draw(count, stream), [stream])

        def fresh() -> Pool:
            with watch.phase("replay"):
                return draw()

        return fresh

    @torch.no_grad()
    def _draw(self, count: int, stream: torch.Generator) -> Pool:
        if count <= _DRAWN:
            codes = self.old_vae.code(count, stream)
            latents = self.latents_of(self.old_vae.decode(codes))
            return Pool(codes, latents, self.old_top(latents))
        pool = Pool.empty(count, self.old_vae.z, self.setup)
        for start in range(0, count, _DRAWN):
            pool.put(start, self._draw(min(_DRAWN, count - start), stream))
        return pool

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        size = self.setup.batch_size  # no more at a time than training draws
        for start in range(0, count if self._old_heads else 0, size):
            pool = self._draw(min(size, count - start), stream)
            images = self.pictures(pool.codes[: max(0, PICTURES - start)])
            yield Replayed("generated", pool.latents, self._answers(pool.answers), images=images)

    def _answers(self, logits: Tensor) -> Tensor:
        """The old top's, as `hard_replay` takes them: int64 (B, heads), or (B, 1)."""
        heads = list(self._old_heads)
        if self.setup.scenario != "task":
            heads = [range(heads[-1].stop)]
        found = [logits[:, h.start : h.stop].argmax(1) + h.start for h in heads]
        return torch.stack(found, 1)

    def pictures(self, codes: Tensor) -> Tensor | None:
        """What is drawn from codes (n, z), for people: uint8 (n, S, S, 3); None: no images."""
        del codes
        return None

    # --- state ------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """After a task the frozen copies are what the networks are: not stored twice."""
        moments = named_optimiser("vae_optimiser", self.vae_optimiser)
        more = {"noise": self._noise.get_state(), "learnt": torch.tensor(len(self._old_heads))}
        return super().state() | named("vae", self.vae) | moments | more

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        restore("vae", self.vae, state)
        restore_optimiser("vae_optimiser", self.vae_optimiser, state)
        self._noise.set_state(state["noise"])
        self._old_heads = self.setup.heads[: int(state["learnt"])]
        frozen_copy(self.vae, self.old_vae)
        frozen_copy(self.top, self.old_top)

    def memory(self) -> dict[str, int]:
        return {
            "generator": parameter_bytes(self.vae),
            "snapshots": parameter_bytes(self.old_vae) + parameter_bytes(self.old_top),
        }

    def macs(self) -> dict[str, int]:
        """A pool's drawing and labelling are spread over the iterations of a task."""
        rows = self.setup.batch_size
        labelled = (self._options.replay_pool / self.setup.iters) or rows
        top = 2 * rows * self.top_step_macs() + labelled * macs(self.old_top)
        drawn = labelled * decoder_macs(self.vae)
        return {
            "top": round(top),
            "generator": round(2 * rows * 3 * macs(self.vae) + drawn),
        }
