"""The columns of the two tables: what a strategy reached, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.report.reading.runs import SeedRun, Total

Measure = Callable[[SeedRun], float | None]

ALSO = {"task": "class", "class": "task"}
"""The scenario in which the same logits are judged too."""


@dataclass(frozen=True)
class Column:
    """A column: how it is headed, where it comes from, how it is scaled for people."""

    key: str
    """In CSV; that of the SeedRun, where it is one of its fields."""
    heading: str
    measure: Measure
    """Of a seed; None where there is no value."""
    scale: float
    digits: int
    exact: bool = False
    """It follows from the settings: a spread of 0 is not worth showing."""


ACCURACY = Column("average_accuracy", "accuracy % ▲", lambda r: r.average_accuracy, 100, 2)
BALANCED = Column("balanced_accuracy", "balanced acc. % ▲", lambda r: r.balanced_accuracy, 100, 2)


def results(scenario: str) -> tuple[Column, ...]:
    """Fractions, shown as per cent; accuracy first.

    >>> [column.heading for column in results("class")][:2]
    ['accuracy % ▲', 'task-incremental % ▲']
    """
    also = Column(
        "also_average_accuracy",
        f"{ALSO.get(scenario, '')}-incremental % ▲",
        lambda r: r.also.average_accuracy if r.also else None,
        100,
        2,
    )
    return (
        ACCURACY,
        *([also] if scenario in ALSO else []),
        Column(
            "average_incremental_accuracy",
            "avg. incr. % ▲",
            lambda r: r.average_incremental_accuracy,
            100,
            2,
        ),
        Column("forgetting", "forgetting % ▼", lambda r: r.forgetting, 100, 2),
        Column("bwt", "BWT % ▲", lambda r: r.bwt, 100, 2),
        Column("fwt", "FWT % ▲", lambda r: r.fwt, 100, 2),
        Column("macro_f1", "macro-F1 % ▲", lambda r: r.macro_f1, 100, 2),
    )


def _total(read: Callable[[Total], float | None]) -> Measure:
    return lambda seed: read(seed.resources.total) if seed.resources else None


COSTS = (
    Column("train_seconds", "training s ▼", lambda r: r.train_seconds, 1, 1),
    Column("cpu_seconds", "CPU s ▼", _total(lambda t: t.cpu_seconds), 1, 1),
    Column("rss_peak_bytes", "peak RSS MB ▼", _total(lambda t: t.rss_peak_bytes), 1e-6, 0),
    Column("rss_growth_bytes", "RSS growth MB ▼", _total(lambda t: t.rss_growth_bytes), 1e-6, 1),
    Column(
        "gpu_utilisation_percent", "GPU use %", _total(lambda t: t.gpu_utilisation_percent), 1, 0
    ),
    Column(
        "gpu_memory_peak_bytes",
        "GPU memory MB ▼",
        _total(lambda t: t.gpu_memory_peak_bytes),
        1e-6,
        0,
    ),
    Column(
        "memory_bytes",
        "kept memory MB ▼",
        lambda r: sum(r.memory_bytes.values()),
        1e-6,
        1,
        exact=True,
    ),
    Column(
        "macs_per_iteration",
        "MMAC / iteration ▼",
        lambda r: sum(r.macs_per_iteration.values()) if r.macs_per_iteration else None,
        1e-6,
        1,
        exact=True,
    ),
)
