"""How the tests of hostile files see that one is refused: in one sentence, without memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cache.errors import Refused
from cache.reader import Cache
from tests.test_cache_verify import check

SECRET = "correct horse battery staple"


@contextmanager
def little_memory(most: int = 20_000_000) -> Iterator[None]:
    """Fails where more than `most` bytes were held at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def read_all(path: Path) -> None:
    with Cache(path) as cache:
        for name in cache.manifest.columns:
            if name != cache.manifest.bulk:
                cache.side(name)
        cache.bulk()
        cache.samples()


def refused(path: Path, says: str) -> None:
    """By a reader, in one sentence without a byte of a file, and by verify."""
    with little_memory():
        with pytest.raises(Refused, match=says) as error:
            read_all(path)
        assert check(path).faults
    assert SECRET not in str(error.value)
    assert len(str(error.value)) < 1000
