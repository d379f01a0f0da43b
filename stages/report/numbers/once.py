"""Extract once, train k times: what the cache saves, against the root in the loop.

The other side is an estimate.  The released code of LGR passes the root in each iteration
over the current rows, with image-space replay over the replayed images too, and over the test
rows after the last task; each pass is taken to cost what stage one's own extraction took for
an image.  Finding faces happens once on both sides; what a run takes besides is the same.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from stages.report.reading.about import StageOne
from stages.report.reading.runs import Run, Study
from stages.report.terminal.table import as_in_paper

_AGAIN = {"nr": 1, "dgr": 2, "dgr+d": 2}
"""Passes for a replayed image: it is learnt, and what is generated is labelled too."""


@dataclass(frozen=True)
class Saved:
    """By one strategy; times are of one run."""

    run: Run
    seconds: float
    """With the cache: the mean over seeds of the whole wall time, else of training."""
    passes: int
    """Of the root in the loop, less those that the run makes itself."""
    seconds_in_loop: float
    break_even: float
    """Runs after which extraction has paid for itself: cached rows / passes."""

    @property
    def factor(self) -> float:
        return self.seconds_in_loop / self.seconds


@dataclass(frozen=True)
class Once:
    """Of a study; seconds."""

    crop: float
    """0: not recorded, or without."""
    extract: float
    rows: int
    strategies: tuple[Saved, ...]
    """Those for which it can be estimated; at least one."""

    @property
    def an_image(self) -> float:
        return self.extract / self.rows

    @property
    def runs(self) -> int:
        """Of the study, one for each seed."""
        return sum(len(saved.run.runs) for saved in self.strategies)

    def of_a_run(self, *, in_loop: bool) -> tuple[float, float, float]:
        """Seconds: least, mean over the study's runs, most."""
        each = [s.seconds_in_loop if in_loop else s.seconds for s in self.strategies]
        total = sum(t * len(s.run.runs) for t, s in zip(each, self.strategies, strict=True))
        return min(each), total / self.runs, max(each)

    def in_all(self, k: float, seconds: float, *, in_loop: bool) -> float:
        """Of stage one and k runs of so many seconds; in the loop, of stage one only faces."""
        return self.crop + (0.0 if in_loop else self.extract) + k * seconds


def once(study: Study) -> Once | None:
    """None: stage one's seconds are not recorded, or no run's iterations are known."""
    abouts = [run.about for run in study.runs if run.about]
    known = [a.stage_one for a in abouts if a.stage_one and a.stage_one.extract_seconds]
    if not known or not known[0].rows or not known[0].extract_seconds:
        return None
    stage: StageOne = known[0]
    extract, rows = known[0].extract_seconds, known[0].rows
    found = (_saved(run, extract / rows, rows) for _, run in as_in_paper(study) if run)
    strategies = tuple(saved for saved in found if saved is not None)
    return Once(stage.crop_seconds or 0.0, extract, rows, strategies) if strategies else None


def _saved(run: Run, an_image: float, rows: int) -> Saved | None:
    passes = passes_in_loop(run)
    if passes is None:
        return None
    passes -= _passes_made(run)
    totals = [s.resources.total.wall_seconds if s.resources else None for s in run.runs]
    values = [
        seed.train_seconds if total is None else total
        for seed, total in zip(run.runs, totals, strict=True)
    ]
    seconds = statistics.fmean(values)
    if passes <= 0 or not seconds:
        return None
    return Saved(run, seconds, passes, seconds + passes * an_image, rows / passes)


def passes_in_loop(run: Run) -> int | None:
    """Images that go through the root in one run of the released code: T iters B current ones,
    (T - 1) iters B replayed ones for each time that they need it, and the test rows once.

    None: with early stopping it is not known how many iterations were made.
    """
    if run.about is not None and run.about.train.early_stopping:
        return None
    step = run.iters * run.batch_size
    replayed = _AGAIN.get(run.strategy, 0) * (run.tasks - 1) * step
    return run.tasks * step + replayed + sum(run.task_test_rows or [])


def _passes_made(run: Run) -> int:
    """By the run itself, for crops that it replays: `macs_per_iteration` spreads them over the
    iterations of a task that replays."""
    a_step = run.runs[0].macs_per_iteration.get("root", 0)
    if not a_step or not run.root_macs:
        return 0
    return round(a_step / run.root_macs * run.iters * (run.tasks - 1))
