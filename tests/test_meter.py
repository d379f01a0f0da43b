"""What a run costs: that it adds up, belongs to its phase, and never fails a run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.train import meter as module
from stages.train.meter import Meter
from stages.train.sensors import (
    GPU_ALLOCATED,
    GPU_MEMORY,
    GPU_UTILISATION,
    RSS,
    Openers,
    Sensor,
    find_gpu,
    sensors_of,
)
from stages.train.tally import Report

NEVER = 3600.0
"""A period longer than any test: samples are taken by hand."""
GPU = ("gpu_utilisation_percent", "gpu_memory_peak_bytes", "gpu_allocated_peak_bytes")
PHASES = ("load", "solver", "generator", "evaluation")


class Hand:
    """A clock that moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Dial:
    """A sensor that shows what is set; an exception is raised."""

    def __init__(self, value: float | Exception = 0.0) -> None:
        self.value = value
        self.closed = 0

    def read(self) -> float:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def close(self) -> None:
        self.closed += 1


def dials(**values: float) -> tuple[dict[str, Dial], Openers]:
    made = {name: Dial(value) for name, value in values.items()}
    return made, {name: _opener(dial) for name, dial in made.items()}


def _opener(sensor: Sensor) -> Callable[[], Sensor]:
    return lambda: sensor


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "meter"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


def test_phases_and_other_are_the_total() -> None:
    wall, cpu = Hand(), Hand()
    with Meter(NEVER, clock=wall, cpu_clock=cpu) as meter:
        for k in range(1000):
            with meter.phase(PHASES[k % 4]):
                wall.now += 0.25
                cpu.now += 0.5  # two threads
            wall.now += 0.125
            cpu.now += 0.0625
    wall.now += 1e6  # after the end nothing counts
    report = meter.report()
    assert {n: f["wall_seconds"] for n, f in report["phases"].items()} == {
        **dict.fromkeys(PHASES, 62.5),
        "other": 125.0,
    }
    assert {f["cpu_seconds"] for f in report["phases"].values()} == {125.0, 62.5}
    assert (report["total"]["wall_seconds"], report["total"]["cpu_seconds"]) == (375.0, 562.5)


def test_real_clocks_add_up() -> None:
    with Meter() as meter:
        with meter.phase("solver"):
            sum(range(2_000_000))
        with meter.phase("load"):
            time.sleep(0.05)
    report = meter.report()
    for unit in ("wall_seconds", "cpu_seconds"):
        parts = sum(figures[unit] for figures in report["phases"].values())
        assert parts == pytest.approx(report["total"][unit], abs=1e-5)
    solver, load = report["phases"]["solver"], report["phases"]["load"]
    assert solver["cpu_seconds"] > 0.2 * solver["wall_seconds"]
    assert load["wall_seconds"] >= 0.05 > 2 * load["cpu_seconds"]


def test_a_phase_inside_a_phase_is_refused() -> None:
    with Meter(NEVER) as meter:
        with (
            meter.phase("solver"),
            pytest.raises(RuntimeError, match='"generator" inside phase "solver"'),
            meter.phase("generator"),
        ):
            pass
        with (
            meter.phase("solver"),
            pytest.raises(RuntimeError, match='"solver" inside phase "solver"'),
            meter.phase("solver"),
        ):
            pass
        with meter.phase("generator"):  # the refusals left nothing open
            pass


def test_a_phase_outside_the_meter_is_refused() -> None:
    meter = Meter(NEVER)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='"load" outside the meter'), meter.phase("load"):
            pass
        if meter.report()["total"]["samples"] == 0:
            with meter:
                pass
    with pytest.raises(RuntimeError, match="make another"), meter:
        pass


@pytest.mark.parametrize("period", [0, -1.0, float("nan")])
def test_a_period_is_positive(period: float) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        Meter(period)


def test_other_is_no_phase() -> None:
    with pytest.raises(ValueError, match="outside any phase"):
        Meter().phase("other")


def test_an_open_run_can_be_reported() -> None:
    wall = Hand()
    with Meter(NEVER, clock=wall) as meter, meter.phase("load"):
        wall.now += 3
        assert meter.report()["phases"]["load"]["wall_seconds"] == 3
        assert meter.report()["phases"]["other"]["wall_seconds"] == 0


def test_samples_belong_to_the_phase_that_runs() -> None:
    made, openers = dials(**{RSS: 5, GPU_UTILISATION: 0, GPU_MEMORY: 1e9, GPU_ALLOCATED: 1e8})
    with Meter(NEVER, sensors=openers) as meter:
        for name, percent, used, rss in [
            ("solver", 20, 2e9, 10),
            ("generator", 90, 5e9, 30),
            ("solver", 50, 3e9, 20),
            ("solver", 80, 2e9, 10),
        ]:
            with meter.phase(name):
                made[GPU_UTILISATION].value, made[GPU_MEMORY].value = percent, used
                made[RSS].value = rss
                meter.sample()
        with meter.phase("evaluation"):
            made[GPU_MEMORY].value = 9e9  # gone before anyone looked
        made[GPU_UTILISATION].value, made[GPU_MEMORY].value = 0, 1e9
        made[GPU_ALLOCATED].value = 4e8
    report = meter.report()
    got = {
        name: (*(figures[key] for key in GPU), figures["rss_peak_bytes"], figures["samples"])  # type: ignore[literal-required]
        for name, figures in (report["phases"] | {"total": report["total"]}).items()
    }
    assert got == {
        "solver": (50, 3e9, None, 20, 3),
        "generator": (90, 5e9, None, 30, 1),
        "evaluation": (None, None, None, None, 0),
        "other": (0, 1e9, None, 10, 2),  # the first and the last sample
        "total": (40, 5e9, 4e8, 30, 6),
    }
    assert report["problems"] == []
    assert all(dial.closed == 1 for dial in made.values())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_growth_is_counted_from_the_start_of_training() -> None:
    made, openers = dials(**{RSS: 500})
    with Meter(NEVER, sensors=openers) as meter:
        with meter.phase("load"):
            made[RSS].value = 900
            meter.sample()
        assert meter.report()["total"]["rss_growth_bytes"] is None
        made[RSS].value = 600
        meter.mark_start()
        for name, rss in (("solver", 650), ("generator", 550)):
            with meter.phase(name):
                made[RSS].value = rss
                meter.sample()
    report = meter.report()
    growth = {name: figures["rss_growth_bytes"] for name, figures in report["phases"].items()}
    assert growth == {"load": None, "solver": 50, "generator": 0, "other": 0}
    assert report["total"]["rss_growth_bytes"] == 50
    assert report["total"]["rss_peak_bytes"] == 900


def test_growth_sees_64_mb() -> None:
    """In a process of its own: here, what other tests leave behind may go at any moment."""
    code = (
        "import time\n"
        "from stages.train.meter import Meter\n"
        "with Meter(period=0.01) as meter:\n"
        "    meter.mark_start()\n"
        "    with meter.phase('solver'):\n"
        "        block = bytearray(b'x') * 64_000_000\n"
        "        time.sleep(0.3)\n"
        "        del block\n"
        "print(meter.report()['phases']['solver']['rss_growth_bytes'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60e6 < float(done.stdout) < 100e6


def _gpu_figures(report: Report) -> list[object]:
    return [f[key] for f in [report["total"], *report["phases"].values()] for key in GPU]  # type: ignore[literal-required]


def test_without_a_gpu_its_columns_are_empty() -> None:
    with Meter(period=0.01) as meter, meter.phase("solver"):
        time.sleep(0.05)
    report = meter.report()
    assert set(_gpu_figures(report)) == {None}
    assert report["problems"] == []
    assert report["phases"]["solver"]["samples"] >= 2
    assert report["phases"]["solver"]["rss_peak_bytes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_gpu_that_is_not_there_is_named_and_harms_nothing() -> None:
    with Meter(device="cuda:0", sync=True) as meter, meter.phase("solver"):
        pass
    report = meter.report()
    assert set(_gpu_figures(report)) == {None}
    named = [problem.partition(":")[0] for problem in report["problems"]]
    assert named == [GPU_UTILISATION, GPU_MEMORY, GPU_ALLOCATED]
    assert report["total"]["rss_peak_bytes"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sync", [False, True])
def test_a_real_gpu(sync: bool) -> None:
    with Meter(period=0.02, device="cuda", sync=sync) as meter, meter.phase("solver"):
        x = torch.ones(64_000_000, device="cuda")
        for _ in range(200):
            x = x.add_(1)
        time.sleep(0.5)
    report = meter.report()
    assert report["problems"] == []
    assert report["synchronised"] is sync
    total, solver = report["total"], report["phases"]["solver"]
    assert 256e6 <= (total["gpu_allocated_peak_bytes"] or 0) < 600e6
    assert (solver["gpu_memory_peak_bytes"] or 0) > 256e6
    assert 0 <= (solver["gpu_utilisation_percent"] or 0) <= 100


@pytest.mark.parametrize("value", [OSError("gone"), float("nan"), float("inf")])
@pytest.mark.parametrize("name", [RSS, GPU_UTILISATION, GPU_MEMORY, GPU_ALLOCATED])
@pytest.mark.parametrize("when", ["first", "middle"])
def test_a_sensor_that_fails_is_dropped_and_named_once(
    name: str, when: str, value: float | Exception
) -> None:
    made, openers = dials(**{RSS: 1, GPU_UTILISATION: 2, GPU_MEMORY: 3, GPU_ALLOCATED: 4})
    if when == "first":
        made[name].value = value
    with Meter(NEVER, sensors=openers) as meter, meter.phase("solver"):
        meter.sample()
        made[name].value = value
        for _ in range(3):
            meter.sample()
            meter.mark_start()
    report = meter.report()
    assert [problem.partition(":")[0] for problem in report["problems"]] == [name]
    total = report["total"]
    seen = {
        RSS: total["rss_peak_bytes"],
        GPU_UTILISATION: total["gpu_utilisation_percent"],
        GPU_MEMORY: total["gpu_memory_peak_bytes"],
        GPU_ALLOCATED: total["gpu_allocated_peak_bytes"],
    }
    before = when == "middle" and name != GPU_ALLOCATED  # that one is read at the end only
    kept = {RSS: 1, GPU_UTILISATION: 2, GPU_MEMORY: 3, GPU_ALLOCATED: 4}
    assert seen == kept | ({} if before else {name: None})
    assert total["samples"] == 6


def test_a_sensor_that_does_not_open_or_close() -> None:
    made, openers = dials(**{RSS: 1})

    def broken() -> Sensor:
        raise ImportError("No module named 'pynvml'")

    class Sticky(Dial):
        def close(self) -> None:
            raise OSError

    with Meter(NEVER, sensors=openers | {GPU_UTILISATION: broken, GPU_MEMORY: Sticky}) as meter:
        pass
    assert meter.report()["problems"] == [
        "gpu_utilisation: ImportError: No module named 'pynvml'",
        "gpu_memory, closing: OSError",
    ]
    assert made[RSS].closed == 1


def test_a_sensor_that_hangs_does_not_keep_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    go, asked = threading.Event(), threading.Event()

    class Stuck(Dial):
        def read(self) -> float:
            if threading.current_thread().name == "meter":
                asked.set()
                go.wait(10)
            return 1.0

    with Meter(period=0.001, sensors={GPU_MEMORY: Stuck}) as meter:
        assert asked.wait(10)
    assert meter.report()["problems"] == ["sampling: a sensor has not answered for 0.05 s"]
    go.set()
    for thread in threads():
        thread.join(10)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Meter() as meter:
        pass
    report = meter.report()
    assert report["problems"] == ["sampling: can't start new thread"]
    assert report["total"]["samples"] == 2


def test_the_thread_ends_with_the_run_also_on_an_error() -> None:
    meter = Meter(period=0.001)
    with pytest.raises(ZeroDivisionError):
        _run_that_fails(meter)
    assert not threads()
    before = meter.report()
    time.sleep(0.01)
    assert meter.report() == before
    assert before["phases"]["solver"]["wall_seconds"] >= 0.02
    assert before["phases"]["other"]["samples"] >= 1  # the last one


def _run_that_fails(meter: Meter) -> None:
    with meter, meter.phase("solver"):
        assert len(threads()) == 1
        time.sleep(0.02)
        raise ZeroDivisionError


def test_sync_waits_at_both_ends_but_not_on_an_error() -> None:
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1

    with Meter(NEVER) as meter:
        meter.wait = wait
        with meter.phase("solver"):
            assert waits == 1
        assert waits == 2
        with pytest.raises(KeyError), meter.phase("solver"):
            raise KeyError
        assert waits == 3


def _nvml(known: str) -> Any:
    class NVMLError(Exception):
        pass

    def find(name: str) -> str:
        if name != known:
            raise NVMLError("Not Found")
        return f"handle of {name}"

    return SimpleNamespace(
        NVMLError=NVMLError, nvmlDeviceGetHandleByUUID=find, nvmlDeviceGetHandleByPciBusId=find
    )


@pytest.mark.parametrize("known", ["GPU-12-ab", "MIG-12-ab", "00000000:3b:00.0"])
def test_gpu_is_found_by_what_torch_and_nvml_agree_upon(
    known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(uuid="12-ab", pci_domain_id=0, pci_bus_id=0x3B, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    assert find_gpu("cuda:1", _nvml(known)) == f"handle of {known}"


def test_a_gpu_that_nvml_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of torch tell no PCI address."""
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="12-ab")
    )
    with pytest.raises(LookupError, match=r"no GPU 12-ab, which is torch's cuda:1"):
        find_gpu("cuda:1", _nvml("GPU-another"))


def test_which_sensors_a_device_has() -> None:
    assert set(sensors_of("cpu")) == {RSS}
    assert set(sensors_of("cuda:1")) == {RSS, GPU_UTILISATION, GPU_MEMORY, GPU_ALLOCATED}


def test_measuring_the_cpu_needs_no_torch() -> None:
    code = (
        "import sys\nfrom stages.train.meter import Meter\nwith Meter(): pass\n"
        "sys.exit(' '.join({'torch', 'pynvml'} & sys.modules.keys()) or 0)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_entering_and_leaving_is_cheap() -> None:
    """About 1 µs together, 3 µs each allowed; the limit here is for a machine that is busy."""
    with Meter() as meter:
        best = min(_seconds_a_turn(meter, 2000) for _ in range(10))
    assert best < 20e-6


def _seconds_a_turn(meter: Meter, turns: int) -> float:
    started = time.perf_counter()
    for _ in range(turns):
        with meter.phase("solver"):
            pass
    return (time.perf_counter() - started) / turns


def test_sampling_costs_next_to_nothing() -> None:
    """Under 1 % is promised, 0.2 % seen; the limit here is for a machine that is busy."""
    with Meter() as meter, meter.phase("solver"):
        ends = time.perf_counter() + 1
        while time.perf_counter() < ends:
            sum(range(1000))
    report = meter.report()
    assert report["total"]["samples"] >= 5
    assert 0 < report["sampling_cpu_seconds"] < 0.05 * report["total"]["wall_seconds"]
