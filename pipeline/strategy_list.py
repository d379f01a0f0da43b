"""What `lgr-pipe strategies` shows: each strategy, what it costs, and its own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.console import bytes_text
from stages import strategies
from stages.extract.backbones import CROP_SIZE, choose, cost
from stages.train.strategy import Images, Setup


@dataclass(frozen=True)
class Case:
    """What costs are counted for."""

    backbone: str
    classes: int
    tasks: int
    iters: int
    batch_size: int


def listing(case: Case) -> str:
    """A few lines on each; nothing is computed and no memory is taken for it.

    Raises:
        Refused: a backbone that does not exist.
    """
    tap = choose(case.backbone, None)
    size = (tap.entry.size if tap.entry else None) or CROP_SIZE
    root = cost(tap, size)
    setup = _setup(case, root.dim, size, 1 if tap.grey else 3, root.macs)
    head = (
        f"Counted for {case.backbone} ({root.dim} values a latent, crops {size} x {size}), "
        f"{case.classes} classes in {case.tasks} tasks, batch {case.batch_size}, {case.iters} "
        "iterations a task; MMAC: million multiply-accumulates in an iteration with replay."
    )
    return "\n".join([head, *(_lines(name, setup) for name in strategies.names())])


def _setup(case: Case, dim: int, side: int, channels: int, macs: int) -> Setup:
    each = -(-case.classes // case.tasks)
    heads = tuple(
        range(start, min(start + each, case.classes)) for start in range(0, case.classes, each)
    )
    images = Images(side, channels * side * side, _unused, _unused, macs)
    return Setup(
        dim=dim,
        heads=heads,
        scenario="task",
        iters=case.iters,
        batch_size=case.batch_size,
        lr=1e-4,
        seed=0,
        device="meta",
        unit_range=True,
        images=images,
    )


def _unused(_: Tensor) -> Tensor:
    raise ValueError("costs are counted without an image")


def _lines(name: str, setup: Setup) -> str:
    module = strategies.module(name)
    with torch.device("meta"):
        method = module.Method(setup, module.Options())
    work = ", ".join(f"{part} {macs / 1e6:,.1f}" for part, macs in method.macs().items())
    kept = ", ".join(f"{part} {bytes_text(b)}" for part, b in method.most_memory().items())
    if method.schedule != "sequential":
        kept = "all rows seen"
    shown = [
        f"{name:11}{(module.__doc__ or '').splitlines()[0]}",
        f"reads {' and '.join(method.columns)}; keeps {kept or 'nothing'}; MMAC: {work}",
        *_options(module.Options()),
    ]
    return f"\n{'':11}".join(shown)


def _options(defaults: Any) -> list[str]:
    fields = defaults.__dataclass_fields__
    return [f"--{f.replace('_', '-')} (default {getattr(defaults, f)})" for f in fields]
