"""Replayed latents beside real ones: spread, answers, nearest class means, coordinates.

All latents are centred on the real rows' mean, so that nothing is lost to large means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.train.components import Components
from stages.train.replayed import PICTURES, Replayed

Arrays = dict[str, NDArray[Any]]

_PART = 128
"""Rows of which more is made at a time."""
_FAR = 1e300
"""Squared distance to a class of which no row is there."""


@dataclass(frozen=True)
class Classes:
    """The classes learnt so far, in class order."""

    names: tuple[str, ...]
    tasks: Tensor
    """int64 (C,), of each."""
    outputs: Tensor
    """int64 (C,), the output that answers each; domain-incrementally several have the same."""
    by_head: bool
    """Task-incrementally an answer is chosen among the classes of one task, else among all."""

    def rivals(self, answers: Tensor) -> Tensor:
        """bool (n, C): among which classes each of the answers, int64 (n,), was chosen."""
        if not self.by_head:
            return torch.ones(len(answers), len(self.names), dtype=torch.bool)
        task_of_output = torch.empty(int(self.outputs.max()) + 1, dtype=torch.int64)
        task_of_output[self.outputs] = self.tasks
        return task_of_output[answers, None] == self.tasks


class Real:
    """A sample of the real rows; their latents are centred in place."""

    def __init__(self, classes: Classes, latents: Tensor, places: Tensor) -> None:
        """`latents` float32 (n, D) in main memory, n at least 2; `places` int64 (n,): the class
        of each."""
        self.classes, self.places = classes, places
        self.centre = _mean(latents)
        self.latents = latents.sub_(self.centre)
        self.spread = sum(float(x.double().square().sum()) for x in _parts(latents)) / (
            len(latents) - 1
        )
        """Trace of the covariance."""
        self.counts = places.bincount(minlength=len(classes.names))
        self._means = torch.zeros(len(classes.names), latents.shape[1], dtype=torch.float64)
        for x, of in zip(_parts(latents), torch.split(places, _PART), strict=True):
            self._means.index_add_(0, of, x.double())
        self._means /= self.counts.clamp_min(1)[:, None]
        self._square = self._means.square().sum(1)

    def distances(self, x: Tensor) -> Tensor:
        """Centred rows (n, D) -> squared distances to the class means, float64 (n, C)."""
        x = x.double()
        square = x.square().sum(1, keepdim=True)
        found = (square - 2 * x @ self._means.T + self._square).clamp_min_(0)
        return found.masked_fill_(self.counts == 0, _FAR)

    def agreement(self) -> float | None:
        """Share of the rows whose class has the nearest mean among those that answers to the row
        are chosen among; each row is left out of its own class's mean.  None: no row has a
        choice."""
        tally = _Tally()
        for x, of in zip(_parts(self.latents), torch.split(self.places, _PART), strict=True):
            distances, counts = self.distances(x), self.counts[of]
            # The mean without the row is counts / (counts - 1) times as far from it.
            without = torch.where(counts > 1, (counts / (counts - 1).clamp_min(1)).square(), 0.0)
            own = distances.gather(1, of[:, None]).squeeze(1) * without
            own = own.masked_fill(counts < 2, _FAR)
            distances.scatter_(1, of[:, None], own[:, None])
            answers = self.classes.outputs[of]
            tally.add(self.classes, distances, answers, torch.ones(len(x), dtype=torch.bool))
        return tally.share


@dataclass
class _Tally:
    agreeing: int = 0
    of: int = 0

    def add(self, classes: Classes, distances: Tensor, answers: Tensor, known: Tensor) -> None:
        """`known`: bool (n,), rows that have distances.  An answer without a choice says
        nothing."""
        rivals = classes.rivals(answers)
        asked = known & (rivals.sum(1) > 1)
        nearest = distances.masked_fill(~rivals, torch.inf).argmin(1)
        self.agreeing += int(((classes.outputs[nearest] == answers) & asked).sum())
        self.of += int(asked.sum())

    @property
    def share(self) -> float | None:
        return round(self.agreeing / self.of, 6) if self.of else None


@dataclass
class Found:
    """What has been seen of the replayed rows, part by part."""

    real: Real
    axes: Components | None = None
    """Where coordinates are wanted."""
    kind: str = ""
    rows: int = 0
    _finite: int = 0
    _sum: Tensor | float = 0.0
    _square: float = 0.0
    _tally: _Tally = field(default_factory=_Tally)
    _labels: list[Tensor] = field(default_factory=list)
    _points: list[Tensor] = field(default_factory=list)
    _places: list[Tensor] = field(default_factory=list)
    _images: list[Tensor] = field(default_factory=list)
    _image_places: list[Tensor] = field(default_factory=list)

    def add(self, part: Replayed) -> None:
        classes = self.real.classes
        x = part.latents.cpu() - self.real.centre
        answers = part.answers.cpu()
        # A generator can diverge: such rows are counted and answered, but lie nowhere.
        known = torch.isfinite(x).all(1)
        x = torch.where(known[:, None], x, 0.0)
        distances = self.real.distances(x)
        self.kind, self.rows = part.kind, self.rows + len(x)
        self._finite += int(known.sum())
        self._sum = self._sum + x.double().sum(0)
        self._square += float(x.double().square().sum())
        for column in answers.unbind(1):
            self._tally.add(classes, distances, column, known)
            self._labels.append(self._answered(column, distances, part.tasks))
        nearest = distances.argmin(1)
        places = nearest if part.kind == "generated" else self._labels[-1]
        if self.axes is not None:
            self._points.append(self.axes.scores(x[known]))
            self._places.append(places[known])
            if part.images is not None:
                self._images.append(part.images.cpu())
                self._image_places.append(places[: len(part.images)])

    def _answered(self, answers: Tensor, distances: Tensor, tasks: Tensor | None) -> Tensor:
        """The class that each answer stands for, int64 (n,).  Domain-incrementally an output is a
        class of each task: that of the row's own, or else the one with the nearest mean."""
        classes = self.real.classes
        fits = classes.outputs == answers[:, None]
        if tasks is not None:
            fits &= classes.tasks == tasks.cpu()[:, None]
        return distances.masked_fill(~fits, torch.inf).argmin(1)

    def figures(self) -> dict[str, Any]:
        """Ready for JSON."""
        names = self.real.classes.names
        counts = torch.cat(self._labels).bincount(minlength=len(names)).tolist()
        return {
            "kind": self.kind,
            "drawn": self.rows,
            "variance_ratio": self._variance_ratio(),
            "labels": dict(zip(names, counts, strict=True)),
            "ncm_agreement": self._tally.share,
            "ncm_agreement_real": self.real.agreement(),
        }

    def _variance_ratio(self) -> float | None:
        """None: of fewer than two rows, or real rows that are all the same."""
        if self._finite < 2 or not self.real.spread > 0:
            return None
        mean = torch.as_tensor(self._sum) / self._finite
        spread = (self._square - self._finite * float(mean.square().sum())) / (self._finite - 1)
        ratio = max(spread, 0.0) / self.real.spread
        return round(ratio, 6) if np.isfinite(ratio) else None

    def shown(self) -> Arrays:
        """Coordinates on the axes, real rows first, and images where there are any."""
        if self.axes is None:
            raise ValueError("no coordinates were asked for")
        points = torch.cat([self.axes.scores(self.real.latents), *self._points])
        generated = torch.arange(len(points)) >= len(self.real.latents)
        found = {
            "points": points.float(),
            "generated": generated.to(torch.uint8),
            "label": torch.cat([self.real.places, *self._places]).to(torch.int16),
            "explained": self.axes.explained,
        }
        if self._images:
            found["images"] = torch.cat(self._images)[:PICTURES]
            found["image_labels"] = torch.cat(self._image_places)[:PICTURES].to(torch.int16)
        return {name: tensor.numpy() for name, tensor in found.items()}


def _mean(latents: Tensor) -> Tensor:
    """float32 (D,)."""
    total = sum((x.double().sum(0) for x in _parts(latents)), torch.zeros(()).double())
    return (total / len(latents)).float()


def _parts(latents: Tensor) -> Iterable[Tensor]:
    return torch.split(latents, _PART)
