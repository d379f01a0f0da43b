"""Latents that stay on disk: more rows than there is memory for.

A pass over a task's rows goes in windows, as many rows as the memory given to
it allows: the chunks of the cache that hold them come in a random order, the
rows of a window are shuffled, and the next window is read while one is learnt
from.  Each row is visited once a pass, as from memory, but rows of one chunk
come closer together; a task that fits into memory is read once and shuffled as
a whole: the same batches as from memory, to the bit.  What order comes depends
on the seed, the memory given, and how the cache is cut into chunks; never on
the memory that happens to be free.

    memory given    6/8 two windows, one that is learnt from and one that is being read, or a whole
                    task; 1/8 two parts of what is looked at once (evaluation), one after the
                    other; 1/16 such a part that was all that was asked for, kept
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.reader import Cache
from stages.train.view import PART, Stretch, sent

Rows = NDArray[np.int64]


class Reader:
    """Any rows of a cache's latents, every one checked; from any thread."""

    def __init__(self, cache: Cache) -> None:
        """`cache`: open as long as this is used."""
        rows, dim = cache.manifest.columns[cache.manifest.bulk].shape
        self.shape, self.chunk_rows, self._cache = (rows, dim), cache.chunk_rows, cache

    @property
    def row_bytes(self) -> int:
        """In memory, as float32."""
        return 4 * self.shape[1]

    def __getitem__(self, rows: Rows) -> NDArray[np.float32]:
        """As `fill`: float32 (n, D)."""
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        self.fill(out, rows)
        return out

    def fill(self, out: NDArray[np.float32], rows: Rows) -> None:
        """Latents of `rows`, int64 (n,) in any order, into `out` (n, D).

        A chunk at a time: of several, the cache would take all cores, which learning needs.

        Raises:
            CacheDamagedError: a row does not have its digest.
        """
        order = np.argsort(rows, kind="stable")
        asked = rows[order]
        first = np.flatnonzero(np.diff(asked // self.chunk_rows, prepend=-1)).tolist()
        for begin, end in itertools.pairwise([*first, len(rows)]):
            start = int(asked[begin]) // self.chunk_rows * self.chunk_rows
            found = self._cache.bulk_rows(start, min(start + self.chunk_rows, self.shape[0]))
            out[order[begin:end]] = found[asked[begin:end] - start]


@dataclass
class OnDisk:
    """A `view.Source` that reads latents as they are needed."""

    reader: Reader
    targets: Tensor
    """int64 (N,), on the training device."""
    crops: Tensor | None
    """uint8 (N, S, S, 3), in main memory."""
    memory: int
    """Bytes of latents that may be in memory."""
    _kept: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    """What was asked for last in one part, and its latents."""

    @property
    def dim(self) -> int:
        return self.reader.shape[1]

    @property
    def window_rows(self) -> int:
        """Of a task that does not fit."""
        return max(1, self._rows_in(3))

    def _rows_in(self, eighths: int) -> int:
        return self.memory * eighths // 8 // self.reader.row_bytes

    def read(self, rows: Tensor) -> Tensor:
        return sent(self._read(rows), self.targets.device)

    def _read(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.reader[rows.numpy()])

    def once(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """In the order of the cache; what fits into one part is kept for the next time."""
        most = max(1, min(PART, self._rows_in(1) // 2))
        order = torch.argsort(rows, stable=True)
        if len(rows) <= most:
            if self._kept is None or not torch.equal(self._kept[0], rows):
                self._kept = None
                self._kept = rows, self._read(rows[order])
            yield order, sent(self._kept[1], self.targets.device)
            return
        for positions in torch.split(order, most):
            yield positions, self.read(rows[positions])

    def passes(
        self, rows: Tensor, visits: int, generator: torch.Generator
    ) -> Generator[Stretch, None, None]:
        """Just so many visits: of a window that is not needed as a whole, no more is read."""
        if len(rows) <= self._rows_in(6):
            latents = self._read(rows)
            while True:
                order = torch.randperm(len(rows), generator=generator)
                yield Stretch(order, order, latents)
        room = min(self.window_rows, visits)
        two = itertools.cycle([torch.empty(room, self.dim) for _ in range(2)])

        def read(positions: Tensor) -> Stretch:
            latents = next(two)[: len(positions)]
            self.reader.fill(latents.numpy(), rows[positions].numpy())
            return Stretch(positions, torch.arange(len(positions)), latents)

        with ThreadPoolExecutor(1, "latents") as ahead:
            coming: Future[Stretch] | None = None
            for positions in self._plan(rows, visits, generator):
                following = ahead.submit(read, positions)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def _plan(self, rows: Tensor, visits: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Which of the rows are visited, window after window, int64; `visits` in all."""
        while True:
            for window in self._windows(rows, generator):
                part = window[torch.randperm(len(window), generator=generator)][:visits]
                visits -= len(part)
                yield part
                if not visits:
                    return

    def _windows(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All positions in `rows`, chunk after chunk in a random order, cut evenly."""
        chunks, chunk_of = torch.unique(rows // self.reader.chunk_rows, return_inverse=True)
        turns = torch.randperm(len(chunks), generator=generator)
        order = torch.argsort(turns[chunk_of], stable=True)
        return torch.tensor_split(order, -(-len(rows) // self.window_rows))
