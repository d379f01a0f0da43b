"""Do two things at once without holding more than a few units in memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(source: Iterable[T], stop: Callable[[], None]) -> Generator[T]:
    """The items of `source`, made in a thread: one is made while one is being used.

    `stop` must make a source that is waiting for something give up; it is
    called when the consumer ends early.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                ready.put((kind, value), timeout=0.1)
                return

    def produce() -> None:
        try:
            for item in source:
                put("item", item)
                if ended.is_set():
                    return
            put("end", None)
        except BaseException as error:  # the consumer raises it, in its own thread
            put("error", error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        ended.set()
        stop()
        thread.join()


class Behind:
    """Runs calls in a thread, in order; at most `most` are not done while the next is prepared.

    What a call raises comes out of a later `do`, or of the end of the `with`.  Where that ends by
    an exception, calls that are not begun are left out.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1)
        self._running: deque[Future[None]] = deque()

    def do(self, call: Callable[..., None], *words: Any) -> None:
        self._wait(self._most - 1)
        self._running.append(self._thread.submit(call, *words))

    def _wait(self, left: int) -> None:
        while len(self._running) > left:
            self._running.popleft().result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._wait(0)
