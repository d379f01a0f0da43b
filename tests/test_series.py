"""Resources over time: bounded, nothing high is lost, and what is recorded is not in the total."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.run_files import write_resources
from stages.train.meter import Meter
from stages.train.sensors import GPU_MEMORY, GPU_UTILISATION, RSS
from stages.train.series import MOST, Sample, Series, joined
from tests.test_meter import NEVER, Hand, dials


def sample(second: int, rss: int | None) -> Sample:
    return Sample(float(second), "solver", rss, second / 2)


@given(st.lists(st.none() | st.integers(0, 99), max_size=400), st.sampled_from([2, 4, 10]))
@settings(max_examples=60, deadline=None)
def test_a_series_is_bounded_and_keeps_what_is_highest(values: list[int | None], most: int) -> None:
    series = Series(most)
    for second, rss in enumerate(values):
        series.add(sample(second, rss))
        found = series.samples()
        assert len(found) <= most
        assert max(s.rss_bytes or 0 for s in found) == max(v or 0 for v in values[: second + 1])
    found = series.samples()
    assert [s.seconds for s in found] == sorted({s.seconds for s in found})
    assert all(s == sample(int(s.seconds), values[int(s.seconds)]) for s in found)
    if len(values) < most:
        assert len(found) == len(values)
    elif values:
        assert len(found) >= most // 2


def test_samples_lie_evenly_in_a_long_run() -> None:
    series = Series()
    for second in range(100_000):
        series.add(sample(second, 7))
    found = [s.seconds for s in series.samples()]
    assert 100 <= len(found) <= MOST
    assert {after - before for before, after in pairwise(found)} == {512}


def test_a_resumed_seed_goes_on_after_its_first_seconds() -> None:
    first, then = [sample(k, k) for k in range(3)], [sample(k, 9) for k in range(2)]
    found = joined(first, then, 10.0, 4.0)
    assert found == [*first, Sample(10.0, "solver", 9, 4.0), Sample(11.0, "solver", 9, 4.5)]
    many = joined([sample(k, k) for k in range(150)], [sample(k, 0) for k in range(150)], 150, 0)
    assert len(many) == 150
    assert many[0] == sample(1, 1)
    assert many[-1].seconds == 298


def read(meter: Meter) -> list[tuple[float, str, int | None, float]]:
    return [s[:4] for s in meter.series()]


def test_the_meter_tells_what_it_has_sampled() -> None:
    wall, cpu = Hand(), Hand()
    made, openers = dials(**{RSS: 10, GPU_UTILISATION: 20, GPU_MEMORY: 3})
    with Meter(NEVER, sensors=openers, clock=wall, cpu_clock=cpu) as meter:
        for name in ("solver", "record"):
            with meter.phase(name):
                wall.now, cpu.now = wall.now + 2, cpu.now + 3
                made[RSS].value += 5
                meter.sample()
        made[RSS].value = ValueError("gone")
        assert read(meter) == [(0, "other", 10, 0), (2, "solver", 15, 3), (4, "record", 20, 6)]
    assert read(meter)[3:] == [(4, "other", None, 6)]
    assert meter.series()[1][4:] == (20, 3)


def test_the_record_is_beside_the_total() -> None:
    """Time, samples, peak and growth of the phase are its own."""
    wall, cpu = Hand(), Hand()
    made, openers = dials(**{RSS: 10})

    def spend(meter: Meter, name: str, seconds: float, rss: int) -> None:
        with meter.phase(name):
            wall.now, cpu.now = wall.now + seconds, cpu.now + 2 * seconds
            made[RSS].value = rss
            meter.sample()

    with Meter(NEVER, sensors=openers, clock=wall, cpu_clock=cpu) as meter:
        meter.mark_start()
        spend(meter, "solver", 3, 30)
        spend(meter, "record", 100, 500)
        assert meter.report()["total"]["wall_seconds"] == 3
        made[RSS].value = 20
        wall.now += 1
    report = meter.report()
    assert set(report["phases"]) == {"solver", "other"}
    total, record = report["total"], report["record"]
    assert (total["wall_seconds"], total["cpu_seconds"]) == (4, 6)
    assert (total["rss_peak_bytes"], total["rss_growth_bytes"], total["samples"]) == (30, 20, 3)
    assert (record["wall_seconds"], record["cpu_seconds"]) == (100, 200)
    assert (record["rss_peak_bytes"], record["rss_growth_bytes"], record["samples"]) == (
        500,
        490,
        1,
    )
    assert sum(f["wall_seconds"] for f in report["phases"].values()) == total["wall_seconds"]


def test_what_the_record_leaves_behind_is_no_growth() -> None:
    """It is in the peak, which is what the system counts."""
    made, openers = dials(**{RSS: 100})
    with Meter(NEVER, sensors=openers) as meter:
        meter.mark_start()
        for rss, left in ((130, 0), (145, 20), (140, -50), (139, 3)):
            made[RSS].value = rss
            assert meter.resident() == rss
            meter.leave_out(left)
            meter.sample()
    total = meter.report()["total"]
    assert (total["rss_peak_bytes"], total["rss_growth_bytes"]) == (145, 30)
    with Meter(NEVER, sensors={}) as blind:
        assert blind.resident() == 0


def test_a_run_without_a_record_has_nothing_beside() -> None:
    with Meter(NEVER, sensors={}) as meter:
        pass
    assert meter.report()["record"]["wall_seconds"] == 0
    assert meter.report()["record"]["samples"] == 0


def test_resources_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "resources.csv"
    on_gpu = Sample(0.1, "record", 5, 0.25, 98.5, 7)
    write_resources(path, {3: [sample(0, None), on_gpu], 0: [sample(1, 2)]})
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows == [
        ["seed", *Sample._fields],
        ["3", "0.0", "solver", "", "0.0", "", ""],
        ["3", "0.1", "record", "5", "0.25", "98.5", "7"],
        ["0", "1.0", "solver", "2", "0.5", "", ""],
    ]


@pytest.mark.parametrize("most", [2, 200])
def test_no_sample_no_line(most: int) -> None:
    assert Series(most).samples() == []
