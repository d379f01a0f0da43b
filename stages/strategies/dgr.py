"""Deep Generative Replay (DGR), hard targets.

Paper: Shin et al. 2017, as the LGR paper compares it (section IV-C, Table I:
VAE of 1600 units).
Idea: as `lgr`, but the VAE learns and draws the crops themselves; what it draws
goes through the root to be labelled and learnt.
Cost: VAE of 101.6 M parameters (407 MB) for 100 x 100 x 3 values and its frozen
copy, and the root's pass for every image drawn: B an iteration, or as many a
task as the replay pool holds.
Bias: as `lgr`.  The drawn faces are blurred means, and the root, which never
saw such, makes latents of them that are far from any real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stages.train.generative import GenerativeReplay, GeneratorOptions, ReplayLoss
from stages.train.losses import hard_replay
from stages.train.pool import Pool
from stages.train.replayed import THROUGH_ROOT, Replayed
from stages.train.strategy import Column, Setup
from stages.train.view import Batch


@dataclass(frozen=True)
class Options(GeneratorOptions):
    generator_units: int = 1600
    """Units of each hidden layer of the VAE."""


class Method(GenerativeReplay):
    columns: ClassVar[tuple[Column, ...]] = ("latents", "crops")

    def __init__(
        self, setup: Setup, options: Options, replay_loss: ReplayLoss = hard_replay
    ) -> None:
        self._images = setup.need_images()
        super().__init__(setup, options, replay_loss, self._images.size, unit=True)

    def learnt_from(self, batch: Batch) -> Tensor:
        return self._images.pixels(batch.pictures())

    def latents_of(self, things: Tensor) -> Tensor:
        return self._images.root(things)

    def _things(self, batch: Batch, replays: Pool | None, latents: Tensor | None) -> Tensor:
        del latents  # what is learnt here are the images
        return super()._things(batch, replays, None)

    def _drawn_things(self, replays: Pool) -> Tensor:
        return self.old_vae.decode(replays.codes)

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        return super().replayed(min(count, THROUGH_ROOT), stream)

    def pictures(self, codes: Tensor) -> Tensor:
        return self._images.pictures(self.old_vae.decode(codes))

    def macs(self) -> dict[str, int]:
        labelled = (self._options.replay_pool / self.setup.iters) or self.setup.batch_size
        return super().macs() | {"root": round(labelled * self._images.macs)}
