"""Deep Generative Replay with distillation (DGR+d), soft targets.

Paper: van de Ven et al. 2020, as the LGR paper compares it (section IV-C).
Idea: as `dgr`, with the targets of `lgr+d`.
Cost: as `dgr`.
Bias: as `dgr`, milder: see `lgr+d`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from stages.strategies import dgr
from stages.train.losses import check_temperature, soft_replay
from stages.train.strategy import Setup


@dataclass(frozen=True)
class Options(dgr.Options):
    temperature: float = 2.0
    """Softens the targets; their loss is multiplied by its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature(self.temperature)


class Method(dgr.Method):
    def __init__(self, setup: Setup, options: Options) -> None:
        super().__init__(setup, options, partial(soft_replay, temperature=options.temperature))
