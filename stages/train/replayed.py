"""What a strategy gives to be looked at: a sample of what it replays now.

A strategy that replays nothing, or that was written without `replayed`, is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Kind = Literal["generated", "stored"]
PICTURES = 24
"""Generated images that are kept to be shown, at most."""
THROUGH_ROOT = 128
"""Rows that are looked at where each costs a pass of the root, at most."""


@dataclass(frozen=True)
class Replayed:
    """Some of what is replayed, n rows, without gradients."""

    kind: Kind
    latents: Tensor
    """float32 (n, D)."""
    answers: Tensor
    """int64 (n, k), outputs.  generated: the old top's, one for each head that it has
    (task-incremental) or one of all; stored: the output that is learnt, k = 1."""
    tasks: Tensor | None = None
    """int64 (n,), of stored rows: the task that each is learnt as one of."""
    images: Tensor | None = None
    """uint8 (m, S, S, 3), m <= n: the first of them as pictures, where images are generated."""


@runtime_checkable
class Replaying(Protocol):
    """A strategy that can be looked at.  Asked between tasks, never while one is learnt."""

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        """At most `count` rows, part by part, drawn as training draws them, but from `stream`
        (on the training device): nothing that is learnt later may change by it.  No part where
        there is nothing to replay yet."""
