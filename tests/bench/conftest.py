"""One `bench` for all files here; what it has at the end is printed and written to bench.json."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.measuring import Bench

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    found = Bench(quick=os.environ.get("QUICK", "") not in ("", "0"), folder=ROOT / "bench")
    yield found
    found.write(ROOT / "bench.json")
    print(f"\n{found.table()}")
