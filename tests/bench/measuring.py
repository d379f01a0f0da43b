"""Ours and something else in turn, in one run: ratios of medians, never a verdict on time."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from pipeline.device import prepare


@dataclass(frozen=True)
class Row:
    """One comparison."""

    row: str
    other: str
    """What ours is compared with: a floor (nothing can be faster) or what people use."""
    equal: str
    """What was held equal."""
    aim: str
    """Of the ratio, as a reader says it: ">= 0.90"."""
    ours_s: float
    """Median seconds."""
    other_s: float
    ratio: float
    """other / ours, median over the repeats: above 1, ours is faster."""
    ratio_min: float
    ratio_max: float
    n: int
    """Repeats, one of each in turn, after a warm-up of both."""
    note: str = ""


@dataclass
class Bench:
    """What was measured so far; `make bench` writes it."""

    quick: bool
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Other measurements, plain JSON by name: growth, memory, break-even."""
    folder: Path = Path("bench")
    """For plots."""

    def compare(
        self,
        row: str,
        ours: Callable[[], object],
        other: Callable[[], object],
        *,
        against: str,
        equal: str,
        aim: str,
        repeats: int = 7,
        note: str = "",
    ) -> Row:
        """Time both in turn; quick: at most three repeats."""
        repeats = min(repeats, 3) if self.quick else repeats
        seconds = seconds_in_turn(ours, other, repeats)
        return self.add(row, *seconds, against=against, equal=equal, aim=aim, note=note)

    def add(
        self,
        row: str,
        ours: list[float],
        other: list[float],
        *,
        against: str,
        equal: str,
        aim: str,
        note: str = "",
    ) -> Row:
        """Seconds that were measured elsewhere, k-th beside k-th: child processes, another venv."""
        ratios = [b / a for a, b in zip(ours, other, strict=True)]
        found = Row(
            row=row,
            other=against,
            equal=equal,
            aim=aim,
            ours_s=statistics.median(ours),
            other_s=statistics.median(other),
            ratio=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            n=len(ratios),
            note=note,
        )
        self.rows.append(found)
        print(f"\n{line(found)}", flush=True)
        return found

    def write(self, path: Path) -> None:
        """bench.json."""
        found = {
            "machine": machine(),
            "quick": self.quick,
            "rows": [asdict(row) for row in self.rows],
            "figures": self.figures,
        }
        path.write_text(json.dumps(found, indent=1) + "\n")

    def table(self) -> str:
        head = "ratio = other / ours (above 1: ours is faster), median [least, most] of n in turn"
        return "\n".join([about_machine(), head, *map(line, self.rows)])


def seconds_in_turn(
    ours: Callable[[], object], other: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Of each, after a warm-up of both."""
    ours(), other()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for work, taken in ((ours, seconds[0]), (other, seconds[1])):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return seconds


@contextmanager
def processor(threads: int) -> Iterator[None]:
    """As `train` prepares it, for both."""
    before = torch.get_num_threads()
    prepare(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def line(r: Row) -> str:
    times = f"ours {_seconds(r.ours_s)}  {r.other} {_seconds(r.other_s)}"
    ratio = f"ratio {r.ratio:.2f} [{r.ratio_min:.2f}, {r.ratio_max:.2f}] n={r.n}, aim {r.aim}"
    return f"{r.row:44} {times}  {ratio}  ({r.equal}){'; ' + r.note if r.note else ''}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.2f} ms"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
    }


def about_machine() -> str:
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [k for k in info.read_text().splitlines() if "model name" in k] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()
