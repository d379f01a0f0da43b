"""Naive Rehearsal (NR): store real crops, rehearse them.

Paper: Hsu et al. 2018, as the LGR paper compares it (section IV-C, Table I:
1500 images).
Idea: as `lr`, but what is stored is the crop; replaying it needs the root.
Cost: buffer of S x (3 S_px^2 + 16) bytes (S = 1500, 100 x 100 px: 45 MB), and
the root's passes: B an iteration on a device that cannot keep latents.  Here
the root is frozen and the buffer rests during a task, so S passes at its start
give the same latents; they lie in memory until it ends (4 D bytes each).
Bias: as `lr`.  With a frozen root the two differ only in what a stored row
takes: nr learns nothing that lr does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stages.train.buffer import Form, Rows
from stages.train.rehearsal import Rehearsal, RehearsalOptions
from stages.train.replayed import THROUGH_ROOT, Replayed
from stages.train.strategy import Column, Setup
from stages.train.view import Batch

_AT_A_TIME = 256
"""Stored crops that go through the root together."""


@dataclass(frozen=True)
class Options(RehearsalOptions):
    buffer_size: int = 1500
    """Crops that are stored."""


class Method(Rehearsal):
    columns: ClassVar[tuple[Column, ...]] = ("latents", "crops")

    def __init__(self, setup: Setup, options: Options) -> None:
        self._images = setup.need_images()
        side = self._images.side
        super().__init__(setup, options, Form((side, side, 3), torch.uint8))

    def stored_as(self, batch: Batch) -> Rows:
        return Rows(batch.pictures(), batch.targets, batch.tasks)

    @torch.no_grad()
    def latents_of(self, values: Tensor) -> Tensor:
        images = self._images
        if not len(values):
            return torch.empty(0, self.setup.dim, device=values.device)
        return torch.cat([images.root(images.pixels(v)) for v in torch.split(values, _AT_A_TIME)])

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        return super().replayed(min(count, THROUGH_ROOT), stream)

    def macs(self) -> dict[str, int]:
        """The root's passes, of a full buffer once a task, are spread over its iterations."""
        passes = self._options.buffer_size * self._images.macs
        return super().macs() | {"root": passes // self.setup.iters}
