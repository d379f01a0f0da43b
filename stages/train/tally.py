"""Samples added up, and the report that is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from stages.train.sensors import GPU_MEMORY, GPU_UTILISATION, RSS


class Figures(TypedDict):
    """What one phase, or all of them, cost.  None: not measured, never nought."""

    wall_seconds: float
    cpu_seconds: float
    """User and system, all threads of this process, without child processes."""
    rss_peak_bytes: int | None
    """Highest sample of the resident set."""
    rss_growth_bytes: int | None
    """Highest sample since the start of training over the value there, less what was left by
    looking at replays; 0 where it fell."""
    gpu_utilisation_percent: float | None
    """Mean of the samples."""
    gpu_memory_peak_bytes: int | None
    """Highest sample of the whole device, all processes."""
    gpu_allocated_peak_bytes: int | None
    """Highest ever in torch's tensors; of the total only."""
    samples: int


class Report(TypedDict):
    """Ready for JSON.  The phases, "other" among them, add up to the total."""

    period_seconds: float
    """Between two samples."""
    synchronised: bool
    """Nothing runs behind a phase: on the CPU, or the GPU was waited for at both its ends."""
    sampling_cpu_seconds: float
    """CPU time of the sampling itself; it is in the phases too."""
    problems: list[str]
    """Each sensor that failed, once."""
    total: Figures
    phases: dict[str, Figures]
    record: Figures
    """Looking at what is replayed; in no phase and not in the total."""


def combined(first: Report, then: Report) -> Report:
    """Of a run that was interrupted and resumed: times add up, peaks are the higher, means are
    weighed by samples.  Growth is over each part's own start, so the higher one is told."""
    names = list(dict.fromkeys([*first["phases"], *then["phases"]]))
    none = Tally().figures(0.0, 0.0, None)
    return {
        "period_seconds": then["period_seconds"],
        "synchronised": first["synchronised"] and then["synchronised"],
        "sampling_cpu_seconds": first["sampling_cpu_seconds"] + then["sampling_cpu_seconds"],
        "problems": list(dict.fromkeys([*first["problems"], *then["problems"]])),
        "total": _both(first["total"], then["total"]),
        "phases": {
            name: _both(first["phases"].get(name, none), then["phases"].get(name, none))
            for name in names
        },
        "record": _both(first["record"], then["record"]),
    }


def _both(a: Figures, b: Figures) -> Figures:
    return {
        "wall_seconds": round(a["wall_seconds"] + b["wall_seconds"], 6),
        "cpu_seconds": round(a["cpu_seconds"] + b["cpu_seconds"], 6),
        "rss_peak_bytes": _peak(a["rss_peak_bytes"], b["rss_peak_bytes"]),
        "rss_growth_bytes": _peak(a["rss_growth_bytes"], b["rss_growth_bytes"]),
        "gpu_utilisation_percent": _weighed(a, b),
        "gpu_memory_peak_bytes": _peak(a["gpu_memory_peak_bytes"], b["gpu_memory_peak_bytes"]),
        "gpu_allocated_peak_bytes": _peak(
            a["gpu_allocated_peak_bytes"], b["gpu_allocated_peak_bytes"]
        ),
        "samples": a["samples"] + b["samples"],
    }


def _peak(a: int | None, b: int | None) -> int | None:
    return max((v for v in (a, b) if v is not None), default=None)


def _weighed(a: Figures, b: Figures) -> float | None:
    parts = [(f["gpu_utilisation_percent"], f["samples"]) for f in (a, b)]
    known = [(value, count) for value, count in parts if value is not None and count]
    total = sum(count for _, count in known)
    return round(sum(value * count for value, count in known) / total, 2) if total else None


@dataclass(slots=True)
class Tally:
    """Running maxima and sums: a run of days takes no more room than one of seconds."""

    samples: int = 0
    rss_peak: float | None = None
    rss_peak_since_mark: float | None = None
    gpu_memory_peak: float | None = None
    gpu_utilisation_sum: float = 0.0
    gpu_utilisation_samples: int = 0

    def add(self, readings: dict[str, float], left: float = 0.0) -> None:
        """One sample: what the sensors that still work have read.  `left`: resident bytes that are
        no growth."""
        self.samples += 1
        rss = readings.get(RSS)
        self.rss_peak = _higher(self.rss_peak, rss)
        grown = None if rss is None else rss - left
        self.rss_peak_since_mark = _higher(self.rss_peak_since_mark, grown)
        self.gpu_memory_peak = _higher(self.gpu_memory_peak, readings.get(GPU_MEMORY))
        if (percent := readings.get(GPU_UTILISATION)) is not None:
            self.gpu_utilisation_sum += percent
            self.gpu_utilisation_samples += 1

    def figures(self, wall: float, cpu: float, mark: float | None) -> Figures:
        """`mark`: resident bytes at the start of training, None before."""
        peak = self.rss_peak_since_mark
        growth = None if mark is None or peak is None else max(peak - mark, 0.0)
        return {
            "wall_seconds": round(max(wall, 0.0), 6),
            "cpu_seconds": round(max(cpu, 0.0), 6),
            "rss_peak_bytes": whole(self.rss_peak),
            "rss_growth_bytes": whole(growth),
            "gpu_utilisation_percent": self._mean_utilisation(),
            "gpu_memory_peak_bytes": whole(self.gpu_memory_peak),
            "gpu_allocated_peak_bytes": None,
            "samples": self.samples,
        }

    def _mean_utilisation(self) -> float | None:
        count = self.gpu_utilisation_samples
        return round(self.gpu_utilisation_sum / count, 2) if count else None


def whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _higher(old: float | None, new: float | None) -> float | None:
    if old is None or new is None:
        return new if old is None else old
    return max(old, new)
