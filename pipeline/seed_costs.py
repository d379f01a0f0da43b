"""What a seed costs, over all processes that have worked on it, and the record's costs apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.device import return_freed_memory
from stages.train.meter import Meter
from stages.train.recorder import Looked, Recorder
from stages.train.replayed import Replaying
from stages.train.series import Sample, joined
from stages.train.strategy import Strategy
from stages.train.tally import Report, combined


@dataclass(frozen=True)
class Before:
    """What a seed had cost when it was interrupted."""

    resources: Report
    series: list[Sample]

    @property
    def spent(self) -> tuple[float, float]:
        """Wall and CPU seconds, those of the record too."""
        both = self.resources["total"], self.resources["record"]
        return sum(f["wall_seconds"] for f in both), sum(f["cpu_seconds"] for f in both)


@dataclass(frozen=True)
class Costs:
    """Up to now."""

    meter: Meter
    before: Before | None

    def resources(self) -> Report:
        now = self.meter.report()
        return now if self.before is None else combined(self.before.resources, now)

    def series(self) -> list[Sample]:
        found = self.meter.series()
        before = self.before
        return found if before is None else joined(before.series, found, *before.spent)


def apart(recorder: Recorder, meter: Meter) -> Callable[[Strategy, int], Looked | None]:
    """The recorder's `look`, after which memory is as if nobody had looked: what it has freed goes
    back to the system, and what stays (code of torch's that nothing else needs) is no growth."""

    def look(strategy: Strategy, learnt: int) -> Looked | None:
        if not isinstance(strategy, Replaying):
            return None
        return_freed_memory()  # of learning, which would hide what looking takes
        before = meter.resident()
        looked = recorder.look(strategy, learnt)
        return_freed_memory()
        meter.leave_out(meter.resident() - before)
        return looked

    return look
