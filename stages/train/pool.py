"""What a frozen generator has drawn, and what the old top says of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.train.strategy import Setup


@dataclass(frozen=True)
class Pool:
    """What was drawn for a task, or for one iteration; without gradients."""

    codes: Tensor
    """(N, z); a thing is decoded again where it is needed, which is cheaper than to keep it."""
    latents: Tensor
    """(N, D)."""
    answers: Tensor
    """(N, classes): the old top's."""

    def __getitem__(self, index: Tensor) -> Pool:
        return Pool(self.codes[index], self.latents[index], self.answers[index])

    @staticmethod
    def empty(rows: int, z: int, setup: Setup) -> Pool:
        """Room for so many."""
        widths = (z, setup.dim, setup.classes)
        return Pool(*(torch.empty(rows, width, device=setup.device) for width in widths))

    def put(self, start: int, part: Pool) -> None:
        """Copy `part` to the places from `start` on."""
        span = slice(start, start + len(part.codes))
        self.codes[span], self.latents[span] = part.codes, part.latents
        self.answers[span] = part.answers
