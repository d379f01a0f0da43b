"""Latent Replay (LR): store real latents, rehearse them.

Paper: Pellegrini et al. 2020, as the LGR paper compares it (section IV-C,
Table I: 1000 latents).
Idea: at task t > 1 each batch of B current rows is joined by B stored ones:
loss = 1/t * current + (1 - 1/t) * replayed.
Cost: buffer of S x (4 D + 16) bytes (S = 1000, D = 4096: 16.4 MB); twice the
rows of `none` in each step of the top.
Bias: the LGR code teaches every replayed row to the first head and keeps the
latest rows rather than a uniform sample (`--protocol released` does so as
well); here each row is scored on its own head, and the buffer is a true
reservoir over distinct rows.
"""

from __future__ import annotations

from stages.train.buffer import latent_form
from stages.train.rehearsal import Rehearsal, RehearsalOptions
from stages.train.strategy import Setup

Options = RehearsalOptions


class Method(Rehearsal):
    def __init__(self, setup: Setup, options: RehearsalOptions) -> None:
        super().__init__(setup, options, latent_form(setup.dim))
