"""A frozen root over many crops: the same bits however many threads there are.

Floating-point sums depend on their order, and a forward pass that is shared out
among threads adds in another order than one that is not.  So crops always go
through in groups of 32, and on a processor each group is one thread's alone:
several groups at once keep the cores busy, at least as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

GROUP = 32
"""Crops per forward pass.  Cut inside a unit, so that no setting changes a value."""

Pass = Callable[[Tensor], Tensor]
"""uint8 (B, H, W, 3) on a device -> float32 (B, D), B <= GROUP."""


class Forward:
    """Runs passes on one device, which has a next one to begin as long as there is any."""

    def __init__(self, device: str, batch_size: int = 256) -> None:
        """`batch_size`: crops that are on a GPU at a time, in whole groups."""
        self._device, self._batch = device, -(-batch_size // GROUP) * GROUP
        self._threads = torch.get_num_threads() if device == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, run: Pass, pixels: Tensor) -> Iterator[Tensor]:
        """float32 (B, D) on the CPU, in order, of uint8 (N, H, W, 3).  The passes are begun at
        once, after those that were asked for before; what comes out is waited for."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, initializer=_work_alone)
        if self._device == "cpu":
            return self._pool.map(partial(_quietly, run), _groups(pixels))
        return self._pool.map(partial(self._on_gpu, run), torch.split(pixels, self._batch))

    def units(self, rows: int) -> int:
        """How many units of so many rows keep all threads busy."""
        return -(-self._threads * GROUP // rows)

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """On an exception in here, what is not begun is left out; whoever waits for it gets an
        error.  Nothing can be asked for after that."""
        try:
            yield
        except BaseException:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            raise

    def _on_gpu(self, run: Pass, batch: Tensor) -> Tensor:
        moved = batch.to(self._device)
        made = [_quietly(run, group) for group in torch.split(moved, GROUP)]
        return torch.cat(made).cpu()  # waited for once


def _groups(pixels: Tensor) -> list[Tensor]:
    return list(torch.split(pixels, GROUP)) if len(pixels) else []


def _work_alone() -> None:
    # Of this thread, and of those that start later and never say; its caller keeps its own number.
    torch.set_num_threads(1)


def _quietly(run: Pass, group: Tensor) -> Tensor:
    with torch.inference_mode():  # which each thread has to say for itself
        return run(group).float()
