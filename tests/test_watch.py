"""What a run tells, what two halves of one cost, and what strategies are listed to cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.device import prepare, threads_for
from pipeline.strategy_list import Case, listing
from stages import strategies
from stages.train import networks
from stages.train.meter import Meter
from stages.train.tally import Figures, Report, combined
from stages.train.watch import Telling


def test_losses_are_logged_as_means_once_an_interval() -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    ticks: list[int] = []

    def event(name: str, **fields: Any) -> None:
        events.append((name, fields))

    with Meter(60.0) as meter:
        watch = Telling(meter.phase, lambda: ticks.append(1), event, interval=3)
        for value in (1.0, 2.0, 6.0, 8.0):
            with watch.phase("solver"):
                parameter = torch.tensor(value, requires_grad=True)
                watch.loss("solver", 1 * parameter)
            watch.tick()
        watch.event("learnt", task=1)
    assert len(ticks) == 4
    assert events == [
        ("losses", {"iteration": 3, "solver": 3.0}),
        ("losses", {"iteration": 4, "solver": 8.0}),  # nothing is lost before an event
        ("learnt", {"task": 1}),
    ]


def _figures(**known: Any) -> Figures:
    nothing: Figures = {
        "wall_seconds": 0.0,
        "cpu_seconds": 0.0,
        "rss_peak_bytes": None,
        "rss_growth_bytes": None,
        "gpu_utilisation_percent": None,
        "gpu_memory_peak_bytes": None,
        "gpu_allocated_peak_bytes": None,
        "samples": 0,
    }
    return {**nothing, **known}  # type: ignore[typeddict-item]


def _report(
    total: Figures, phases: dict[str, Figures], *problems: str, record: Figures | None = None
) -> Report:
    return {
        "period_seconds": 0.1,
        "synchronised": True,
        "sampling_cpu_seconds": 0.25,
        "problems": list(problems),
        "total": total,
        "phases": phases,
        "record": record or _figures(),
    }


def test_two_halves_of_a_run_by_hand() -> None:
    first = _figures(wall_seconds=2.0, cpu_seconds=1.0, rss_peak_bytes=7, samples=1,
                     gpu_utilisation_percent=10.0)  # fmt: skip
    then = _figures(wall_seconds=3.0, cpu_seconds=4.0, rss_peak_bytes=5, samples=3,
                    gpu_utilisation_percent=50.0, rss_growth_bytes=2)  # fmt: skip
    found = combined(
        _report(first, {"solver": first}, "nvml", record=then),
        _report(then, {"replay": then}, "nvml", "rss", record=first),
    )
    assert found["total"] == _figures(
        wall_seconds=5.0, cpu_seconds=5.0, rss_peak_bytes=7, rss_growth_bytes=2, samples=4,
        gpu_utilisation_percent=40.0,
    )  # fmt: skip
    assert found["record"] == found["total"]
    assert found["phases"] == {"solver": first, "replay": then}
    assert found["problems"] == ["nvml", "rss"]
    assert found["sampling_cpu_seconds"] == 0.5


def test_costs_are_those_counted_by_hand() -> None:
    """VGG-16, 8 classes, batch 128: top 4096 x 128 + 128 x 8, three times for a step."""
    text = listing(Case("vgg16", classes=8, tasks=4, iters=2000, batch_size=128))
    lines = {line.split()[0]: line for line in text.splitlines() if line and line[0] != " "}
    assert set(strategies.names()) <= set(lines)
    top = 4096 * 128 + 128 * 8
    vae = 2 * 4096 * 200 + 2 * 200 * 200 + 3 * 100 * 200
    decoder = 4096 * 200 + 200 * 200 + 100 * 200
    assert f"keeps nothing; MMAC: top {3 * 128 * top / 1e6:,.1f}" in text
    assert f"buffer {1000 * (4 * 4096 + 16) / 1e6:.1f} MB" in text
    assert f"buffer {1500 * (30_000 + 16) / 1e6:.1f} MB" in text
    assert f"top {7 * 128 * top / 1e6:,.1f}, generator " in text  # two rows learnt, one labelled
    assert f"generator {128 * (6 * vae + decoder) / 1e6:,.1f}" in text
    assert f"generator {4 * 1_783_396 / 1e6:.1f} MB" in text


def test_small_networks_get_one_thread() -> None:
    assert threads_for(128 * 128) == 1
    assert threads_for(10**12) == torch.get_num_threads()


def test_a_prepared_processor_flushes_what_is_denormal() -> None:
    """So that moments of dead units do not slow every step down."""
    before = torch.get_num_threads()
    try:
        prepare(1)
        if torch.set_flush_denormal(True):  # else this processor cannot
            assert not (torch.full((64,), 1e-41) * 0.9).any()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def test_nothing_is_computed_for_a_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Tensor, *_: Any) -> Tensor:
        assert tensor.device.type == "meta", "a network was filled"
        return tensor

    monkeypatch.setattr(networks.nn.init, "uniform_", refuse)
    listing(Case("lenet", classes=10, tasks=5, iters=500, batch_size=128))
