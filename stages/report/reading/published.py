"""The published numbers: published.csv, and the settings behind them.

Source: Stoychev, Churamani and Gunes, "Latent Generative Replay for Resource-Efficient Continual
Learning of Facial Expressions", Tables II to V and S-I to S-XII; spreads, floors and what is
marked "run logs" from the logs that the authors published with their code.  In the file:
fractions, seconds, bytes (the paper's MB are MiB), per cent of GPU use; strategies, data sets and
roots by our names; one line for each figure, mean (and sample standard deviation) of n runs.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from stages.report.reading.runs import Run

LOGS = "run logs"
"""Instead of a table: what the paper does not show."""
STRATEGIES = ("nr", "lr", "dgr", "lgr", "dgr+d", "lgr+d")
_FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Value:
    """Mean of n runs; sd is None where the spread was not published."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Settings:
    """With which they were made; None: not recorded."""

    iters: int | None
    batch_size: int | None
    lr: float | None
    train_rows: int
    test_rows: int
    floor: float | None
    """Accuracy of the best constant answer; None: it cannot be computed."""
    seeds: int = 3
    order: str = ""
    """Tasks, as --class-order takes them; empty: by seed, or not known."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Of `strategy.option`."""


@dataclass(frozen=True)
class Published:
    """What is published for a data set, root, scenario and number of tasks."""

    table: str
    values: dict[tuple[str, str], Value]
    """By strategy and measure."""
    settings: Settings

    @property
    def source(self) -> str:
        """In words."""
        if self.table == LOGS:
            return "the run logs published with the LGR code (not in the paper)"
        return f"Table {self.table} of the LGR paper"


def published(run: Run) -> Published | None:
    """For any run of a study; None: there is nothing that corresponds."""
    return _all().get((run.dataset, run.backbone, run.scenario, run.tasks))


_FACES = {
    "nr.buffer_size": 1500,
    "lr.buffer_size": 1000,
    **{f"dgr{d}.generator_units": 1600 for d in ("", "+d")},
    **{f"lgr{d}.generator_units": 200 for d in ("", "+d")},
    **{f"{name}+d.temperature": 2 for name in ("dgr", "lgr")},
}
_DIGITS = {
    **_FACES,
    "nr.buffer_size": 1000,
    **{f"dgr{d}.generator_units": 400 for d in ("", "+d")},
    **{f"lgr{d}.generator_units": 128 for d in ("", "+d")},
}
_EIGHT = "neutral,anger;contempt,disgust;fear,happiness;sadness,surprise"
_SEVEN = "neutral,anger;disgust,fear;happiness,sadness;surprise"
_SETTINGS = {
    ("ckplus", "task"): Settings(2000, 32, 1e-4, 1043, 264, 0.7434, order=_EIGHT, options=_FACES),
    ("rafdb", "task"): Settings(2000, 128, 1e-4, 12271, 3068, 0.8010, order=_SEVEN, options=_FACES),
    ("affectnet", "task"): Settings(
        2000, 128, 1e-4, 88021, 4000, 0.5, order=_EIGHT, options=_FACES
    ),
    ("mnist", "task"): Settings(500, 128, 1e-3, 50000, 10000, None, options=_DIGITS),
    ("cifar10", "task"): Settings(None, 128, None, 40000, 10000, 0.5, options=_DIGITS),
    ("ckplus", "class"): Settings(3000, 32, None, 924, 384, 0.125),
    ("mnist", "class"): Settings(1000, 128, 1e-3, 50000, 10000, 0.1, options=_DIGITS),
}
"""By data set and scenario; paper IV-D, Tables I and X, its run logs and released code."""


@cache
def _all() -> dict[tuple[str, str, str, int], Published]:
    found: dict[tuple[str, str, str, int], Published] = {}
    with _FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["dataset"], row["backbone"], row["scenario"], int(row["tasks"]))
            settings = _SETTINGS[row["dataset"], row["scenario"]]
            entry = found.setdefault(key, Published(row["table"], {}, settings))
            entry.values[row["strategy"], row["metric"]] = Value(
                float(row["value"]), float(row["sd"]) if row["sd"] else None, int(row["n"])
            )
    return found
