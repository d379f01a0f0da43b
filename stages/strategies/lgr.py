"""Latent Generative Replay (LGR), hard targets.

Paper: Stoychev, Churamani & Gunes, "Latent Generative Replay for
Resource-Efficient Continual Learning of Facial Expressions", Algorithm 1.
Idea: no real row is kept.  A VAE learns the latents, its frozen copy replays
them, and the largest answer of the frozen old top is their label.
(stages/train/generative.py has the steps.)
Cost: VAE of 1.78 M parameters (7.1 MB) and frozen copies of VAE and top
(9.2 MB) whatever the number of tasks; about four times the arithmetic of
`none`.
Bias: the VAE tends to draw the mean latent, and the arg-max of its label is
then the majority class: hard targets can teach a head to answer only that.
"""

from __future__ import annotations

from stages.train.generative import GenerativeReplay, GeneratorOptions, ReplayLoss
from stages.train.losses import hard_replay
from stages.train.strategy import Setup

Options = GeneratorOptions


class Method(GenerativeReplay):
    def __init__(
        self, setup: Setup, options: GeneratorOptions, replay_loss: ReplayLoss = hard_replay
    ) -> None:
        super().__init__(setup, options, replay_loss, setup.dim, setup.unit_range)
