"""What a run costs, phase by phase: time, memory, GPU.

    with Meter(device="cuda") as meter:
        with meter.phase("load"):
            ...
        meter.mark_start()
        with meter.phase("solver"):
            ...
    meter.report()

Times are read from clocks when a phase is entered and left.  Memory and the
GPU are sampled by a background thread; a sample belongs to the phase that runs
when it is taken.  A peak is therefore the highest sample: what rises and falls
between two of them is not seen, except by torch's allocator, which keeps its
own maximum.  A phase too short to be sampled has no peak.

On CUDA a phase's code returns before the GPU is done, so its time is that of
asking, and the phase that waits next pays for the rest.  The total is right,
the split between phases that take turns is not.  `sync=True` waits for the GPU
at both ends of each phase: the split is right and the run slower, which is
why it is for profiling and not the default.

What is done for the record alone (phase "record") is told beside the total and
not in it: neither its seconds nor its samples are what a run costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from stages.train.probes import Probes
from stages.train.sensors import (
    GPU_ALLOCATED,
    GPU_MEMORY,
    GPU_UTILISATION,
    RSS,
    Openers,
    sensors_of,
    synchroniser,
)
from stages.train.series import Sample, Series
from stages.train.tally import Figures, Report, Tally, whole

OTHER = "other"
ASIDE = "record"
"""The phase that is in no total."""
_SAMPLED = (RSS, GPU_UTILISATION, GPU_MEMORY)
_PATIENCE = 5.0
"""Seconds that a sensor may hang before the run ends without it."""


class Phase:
    """A part of a run; entered and left any number of times, never inside another."""

    __slots__ = ("_cpu_at", "_meter", "_wall_at", "cpu", "name", "tally", "wall")

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self.name = name
        self.tally = Tally()
        self.wall = self.cpu = self._wall_at = self._cpu_at = 0.0

    def __enter__(self) -> None:
        meter = self._meter
        if meter.running is not None:
            raise RuntimeError(meter.why_not(self))
        if meter.wait is not None:
            meter.wait()
        meter.running = self
        self._cpu_at = meter.cpu_clock()
        self._wall_at = meter.clock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        meter = self._meter
        try:
            # Not on top of an error: a broken GPU would raise again and hide the first.
            if meter.wait is not None and kind is None:
                meter.wait()
        finally:
            self.wall += meter.clock() - self._wall_at
            self.cpu += meter.cpu_clock() - self._cpu_at
            meter.running = None

    def spent(self, wall: float, cpu: float) -> tuple[float, float]:
        """Wall and CPU seconds up to these clock readings; the phase may be running."""
        if self._meter.running is not self:
            return self.wall, self.cpu
        return self.wall + wall - self._wall_at, self.cpu + cpu - self._cpu_at


class Meter:
    """Measures one run, on one thread of it.  A sensor that fails is dropped and named.

    `period`: seconds between samples.  `sensors` and the clocks are given by tests.
    """

    def __init__(
        self,
        period: float = 0.1,
        device: str = "cpu",
        *,
        sync: bool = False,
        sensors: Openers | None = None,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        if not period > 0:
            raise ValueError(f"a sampling period is more than 0 s, not {period}")
        self.period = period
        self.clock = clock
        self.cpu_clock = cpu_clock
        self._settle = synchroniser(device)
        self.wait = self._settle if sync else None
        self._probes = Probes(sensors_of(device) if sensors is None else sensors)
        self._phases: dict[str, Phase] = {}
        # No time is booked on these two: "other" is what remains, and while the
        # meter is not running, `closed` is in the way of every phase.
        self._other, self._closed = Phase(self, OTHER), Phase(self, "")
        self.running: Phase | None = self._closed
        self._total, self._series = Tally(), Series()
        self._mark: float | None = None
        self._left = 0.0
        self._allocated: float | None = None
        self._sampling_cpu = 0.0
        self._started: tuple[float, float] | None = None
        self._ended: tuple[float, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def phase(self, name: str) -> Phase:
        """`with meter.phase("solver"):`; the same object for the same name."""
        found = self._phases.get(name)
        if found is None:
            if name == OTHER:
                raise ValueError(f'"{OTHER}" is the time outside any phase; name this one else')
            found = self._phases[name] = Phase(self, name)
        return found

    def mark_start(self) -> None:
        """Training starts here: memory growth is counted from now on."""
        self._mark = self._probes.read(RSS)
        for tally in self._tallies():
            tally.rss_peak_since_mark = None

    def resident(self) -> float:
        """Bytes of this process now; 0 where they cannot be read."""
        return self._probes.read(RSS) or 0.0

    def leave_out(self, grown: float) -> None:
        """From now on no growth counts these bytes (none if below 0): what was done for the record
        has left them, mostly code that nothing else needs."""
        self._left += max(grown, 0.0)

    def sample(self) -> None:
        """Read the sensors once.  The thread does so each period."""
        phase = self.running or self._other
        readings = {name: v for name in _SAMPLED if (v := self._probes.read(name)) is not None}
        phase.tally.add(readings, self._left)
        if phase.name != ASIDE:
            self._total.add(readings, self._left)
        self._series.add(self._sample(phase.name or OTHER, readings))

    def _sample(self, phase: str, readings: dict[str, float]) -> Sample:
        wall_at, cpu_at = self._started or (self.clock(), self.cpu_clock())
        return Sample(
            round(self.clock() - wall_at, 3),
            phase,
            whole(readings.get(RSS)),
            round(self.cpu_clock() - cpu_at, 3),
            readings.get(GPU_UTILISATION),
            whole(readings.get(GPU_MEMORY)),
        )

    def series(self) -> list[Sample]:
        """The course of the run up to now; "record" is in it."""
        return self._series.samples()

    def report(self) -> Report:
        """The figures of the whole run, or up to now if it is not over."""
        wall, cpu = self._ended or (self.clock(), self.cpu_clock())
        allocated = self._allocated if self._ended else self._probes.read(GPU_ALLOCATED)
        wall_at, cpu_at = self._started or (wall, cpu)
        aside = self._phases.get(ASIDE)
        apart = aside.spent(wall, cpu) if aside else (0.0, 0.0)
        wall_at, cpu_at = wall_at + apart[0], cpu_at + apart[1]
        total = self._total.figures(wall - wall_at, cpu - cpu_at, self._mark)
        total["gpu_allocated_peak_bytes"] = whole(allocated)
        return {
            "period_seconds": self.period,
            "synchronised": self.wait is self._settle,
            "sampling_cpu_seconds": round(self._sampling_cpu, 6),
            "problems": list(self._probes.problems),
            "total": total,
            "phases": self._by_phase(wall, cpu, wall - wall_at, cpu - cpu_at),
            "record": (aside.tally if aside else Tally()).figures(*apart, self._mark),
        }

    def _by_phase(
        self, wall: float, cpu: float, rest_wall: float, rest_cpu: float
    ) -> dict[str, Figures]:
        """At the clock readings `wall` and `cpu`.  What the phases leave of the rest is "other"."""
        figures = {}
        for name, phase in self._phases.items():
            if name == ASIDE:
                continue
            spent_wall, spent_cpu = phase.spent(wall, cpu)
            figures[name] = phase.tally.figures(spent_wall, spent_cpu, self._mark)
            rest_wall -= spent_wall
            rest_cpu -= spent_cpu
        figures[OTHER] = self._other.tally.figures(rest_wall, rest_cpu, self._mark)
        return figures

    def why_not(self, phase: Phase) -> str:
        if self.running is self._closed:
            return f'phase "{phase.name}" outside the meter: use it inside `with Meter(...)`'
        inside = self.running.name if self.running else ""
        return f'phase "{phase.name}" inside phase "{inside}": leave that first'

    def __enter__(self) -> Self:
        if self._started is not None:
            raise RuntimeError("a meter measures one run; make another")
        self._probes.open()
        self._started = self.clock(), self.cpu_clock()
        self.running = None
        self.sample()
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread to be had: first and last sample remain
            self._probes.problems.append(f"sampling: {error}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_sampling()
        if self._settle is not None and kind is None:
            self._settle()
        self.sample()
        self._allocated = self._probes.read(GPU_ALLOCATED)
        self._ended = self.clock(), self.cpu_clock()
        self.running = self._closed
        self._probes.close()

    def _stop_sampling(self) -> None:
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._probes.abandon(f"sampling: a sensor has not answered for {_PATIENCE:g} s")

    def _watch(self) -> None:
        while not self._stop.wait(self.period):
            self.sample()
            self._sampling_cpu = time.thread_time()

    def _tallies(self) -> list[Tally]:
        own = [phase.tally for phase in self._phases.values()]
        return [*own, self._other.tally, self._total]
