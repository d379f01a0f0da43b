"""A step that a GPU repeats from a recording (a CUDA graph), without Python between its kernels.

What can be recorded is a function of tensors, of the same shapes each time and all on the GPU,
which reads nothing back; what it changes (parameters, moments) stays at its address, and what it
draws comes from streams that are named.  Each call is one step, whichever way it runs: the first
ones as they are, in a queue of their own, as torch asks for; then it is recorded, which executes
nothing; from then on the recording runs.  Same streams, same draws, so the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_AS_THEY_ARE = 3
"""Calls before the recording: libraries choose their algorithms, moments are allocated."""


class Graphs(Protocol):
    """What records."""

    def aside(self, call: Callable[[], T]) -> T:
        """Run the call in the queue in which it will be recorded."""

    def record(
        self, call: Callable[[], T], streams: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        """What runs the call again, and where its results then are; nothing is executed.

        Raises:
            RuntimeError: it cannot be recorded; the streams are as they were.
        """


class CudaGraphs:
    """torch.cuda's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._queue = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def aside(self, call: Callable[[], T]) -> T:
        here = torch.cuda.current_stream(self._device)
        self._queue.wait_stream(here)
        with torch.cuda.stream(self._queue):
            found = call()
        here.wait_stream(self._queue)
        return found

    def record(
        self, call: Callable[[], T], streams: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        # A recording that fails leaves its streams in a state from which nothing can be drawn.
        kept = [stream.clone_state() for stream in streams]
        here = torch.cuda.current_stream(self._device)
        try:
            for stream in streams:
                graph.register_generator_state(stream)
            # thread_local: other threads may go on allocating (latents read ahead, the meter)
            with (
                torch.cuda.stream(here),
                torch.cuda.graph(graph, stream=self._queue, capture_error_mode="thread_local"),
            ):
                found = call()
        except RuntimeError:
            for stream, state in zip(streams, kept, strict=True):
                stream.graphsafe_set_state(state)
            raise
        return graph.replay, found


class Captured(Generic[T]):
    """`step`, recorded after some calls.  Results hold until the next call."""

    def __init__(
        self,
        step: Callable[..., T],
        streams: Sequence[torch.Generator],
        graphs: Graphs,
        failed: Callable[[str], None],
    ) -> None:
        """`streams`: all that `step` draws from.  `failed` is told why it cannot be recorded; it
        then runs as it is."""
        self._step, self._streams, self._failed = step, streams, failed
        self._graphs: Graphs | None = graphs
        self._calls = 0
        self._recording: tuple[Callable[[], None], T, tuple[Tensor, ...]] | None = None

    def __call__(self, *given: Tensor) -> T:
        if self._graphs is None:
            return self._step(*given)
        self._calls += 1
        if self._calls <= _AS_THEY_ARE:
            return self._graphs.aside(lambda: self._step(*given))
        if self._recording is None and not self._record(self._graphs, given):
            return self._step(*given)
        assert self._recording is not None
        again, found, inputs = self._recording
        for mine, theirs in zip(inputs, given, strict=True):
            if mine.shape != theirs.shape:
                raise ValueError(f"recorded for {tuple(mine.shape)}, given {tuple(theirs.shape)}")
            mine.copy_(theirs)
        again()
        return found

    def _record(self, graphs: Graphs, given: Sequence[Tensor]) -> bool:
        inputs = tuple(tensor.clone() for tensor in given)
        try:
            again, found = graphs.record(lambda: self._step(*inputs), self._streams)
        except RuntimeError as error:
            self._graphs = None
            self._failed(str(error))
            return False
        self._recording = again, found, inputs
        return True
