"""Latent Generative Replay with distillation (LGR+d), soft targets.

Paper: as `lgr`; distillation as DGR+d of van de Ven et al. 2020.
Idea: as `lgr`, but the old top's whole answer, softened by temperature 2,
is the target, not only its largest entry.  The generator is not affected.
Cost: as `lgr`.
Bias: as `lgr`, milder: a latent near the mean has an undecided target, which
teaches less that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from stages.strategies import lgr
from stages.train.generative import GeneratorOptions
from stages.train.losses import check_temperature, soft_replay
from stages.train.strategy import Setup


@dataclass(frozen=True)
class Options(GeneratorOptions):
    temperature: float = 2.0
    """Softens the targets; their loss is multiplied by its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature(self.temperature)


class Method(lgr.Method):
    def __init__(self, setup: Setup, options: Options) -> None:
        super().__init__(setup, options, partial(soft_replay, temperature=options.temperature))
