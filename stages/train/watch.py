"""What a run tells while it goes on: where its time goes, its losses, its iterations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from torch import Tensor

PhaseName = Literal["load", "replay", "solver", "generator", "evaluation", "record"]
"""load: the cache and batches from it; replay: drawing and labelling what is replayed; solver:
steps of the top; generator: steps of the VAE; evaluation: answers to held-out rows; record: looking
at what is replayed, which no run needs: not in its total (meter.ASIDE)."""


class Watch:
    """Says nothing to anyone; the base of what does."""

    def phase(self, name: PhaseName) -> AbstractContextManager[None]:
        """`with watch.phase("solver"):`; phases are never inside one another."""
        del name
        return nullcontext()

    def tick(self) -> None:
        """After each iteration of the solver."""

    def loss(self, name: str, value: Tensor) -> None:
        """A loss of one step (scalar, on any device)."""

    def event(self, name: str, **fields: Any) -> None:
        """Something that a log should keep; fields are ready for JSON."""


class Telling(Watch):
    """Hands on: phases to a meter, iterations to a bar, losses and events to a log.

    Losses are added up where they are computed and read once every `interval`
    iterations: reading each would make a GPU wait each time.
    """

    def __init__(
        self,
        phase: Callable[[str], AbstractContextManager[None]],
        tick: Callable[[], None],
        event: Callable[..., None],
        interval: int = 50,
    ) -> None:
        self._phase, self._tick, self._event, self._interval = phase, tick, event, interval
        self._iterations = 0
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def phase(self, name: PhaseName) -> AbstractContextManager[None]:
        return self._phase(name)

    def tick(self) -> None:
        self._tick()
        self._iterations += 1
        if self._iterations % self._interval == 0:
            self.flush()

    def loss(self, name: str, value: Tensor) -> None:
        value = value.detach()
        known = self._sums.get(name)
        # A sum of its own: a step that is recorded puts the next loss where this one is.
        self._sums[name] = (known[0] + value, known[1] + 1) if known else (value.clone(), 1)

    def event(self, name: str, **fields: Any) -> None:
        self.flush()
        self._event(name, **fields)

    def flush(self) -> None:
        """Log the mean losses since the last time."""
        if self._sums:
            means = {name: total.item() / count for name, (total, count) in self._sums.items()}
            self._event("losses", iteration=self._iterations, **means)
            self._sums.clear()
