"""Adam on torch's fused kernel, without torch.optim's classes.

The first of these that is made imports torch's compiler, which nothing here uses: 1.5 s of a run's
start and 150 MB of its memory.  The arithmetic is the same function's, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """With beta 0.9 and 0.999 (LGR, IV-D); one pass over memory a step."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self.state: dict[int, dict[str, Tensor]] = {}
        """By position: step (float32 scalar), exp_avg and exp_avg_sq (like the parameter); empty
        before the first step."""

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Parameters without a gradient stay as they are."""
        grads = {k: p.grad for k, p in enumerate(self.parameters) if p.grad is not None}
        moments = [self.state.get(k) or self._start(k) for k in grads]
        adam(
            [self.parameters[k] for k in grads],
            list(grads.values()),
            [one["exp_avg"] for one in moments],
            [one["exp_avg_sq"] for one in moments],
            [],
            [one["step"] for one in moments],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _start(self, k: int) -> dict[str, Tensor]:
        like = self.parameters[k]
        self.state[k] = {
            "step": torch.zeros((), dtype=torch.float32, device=like.device),
            "exp_avg": torch.zeros_like(like),
            "exp_avg_sq": torch.zeros_like(like),
        }
        return self.state[k]

    def load_state(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """A copy of another's.  Nothing is checked: who does not trust it looks at it."""
        device = self.parameters[0].device
        self.state = {
            k: {name: value.to(device, copy=True) for name, value in moments.items()}
            for k, moments in state.items()
        }
