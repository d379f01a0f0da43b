"""Several commands at once: within memory and cores, stopped together, none left behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from cache import memory as room
from cache.errors import Refused
from cache.memory import _cgroup_rooms, available_memory, refuse_more_than_free
from pipeline.jobs import Ended, Job, Memory, last_words, run_jobs


def test_memory_by_hand() -> None:
    free = 100
    memory = Memory(40, lambda: free)
    assert memory.admits([])
    # One that has 10 of its 40 will take 30 more: 70 are really free, then 40, then 10.
    assert memory.admits([10])
    assert memory.admits([10, 10])
    assert not memory.admits([10, 10, 10])
    assert memory.admits([50])  # more than expected: nothing more is set aside for it
    memory.measured(50)
    assert memory.need == 60  # a fifth more than the largest so far
    assert memory.admits([50])
    assert not memory.admits([10])
    memory.measured(20)
    assert memory.need == 60
    lighter = Memory(40, lambda: free)
    lighter.measured(0)
    assert lighter.need == 40
    lighter.measured(10)
    assert lighter.need == 12


def test_rooms_of_cgroups(tmp_path: Path) -> None:
    """The limit of each level, less what is used and cannot be given up."""
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    for folder, limit, used, cached in ((inner, "max", 5, 0), (inner.parent, "1000", 700, 200)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert list(_cgroup_rooms("/job/step", tmp_path)) == [500]
    assert list(_cgroup_rooms("/gone", tmp_path)) == []


def test_room_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what the machine has beyond it nor swap counts."""
    for name, text in (("max", "5000"), ("current", "4000"), ("stat", "inactive_file 0")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(room, "_CGROUPS", tmp_path)
    monkeypatch.setattr(room, "_own_cgroup", lambda: "/")
    assert available_memory() == 1000
    refuse_more_than_free(1000, "All of it")
    with pytest.raises(Refused, match="All of it would take"):
        refuse_more_than_free(1001, "All of it")


def sleeper(tmp_path: Path, name: str, seconds: float, code: str = "") -> Job:
    """Notes when it starts and when it ends."""
    note = f"print(repr(time.time()), flush=True, file=open({str(tmp_path / name)!r}, 'a'))"
    body = f"import time, sys, os\n{note}\ntime.sleep({seconds})\n{note}\n{code}"
    return Job(name, (sys.executable, "-S", "-c", body), tmp_path / f"{name}.log")


def spans(tmp_path: Path, jobs: list[Job]) -> list[tuple[float, float]]:
    return [tuple(map(float, (tmp_path / job.name).read_text().split())) for job in jobs]  # type: ignore[misc]


def most_at_once(found: list[tuple[float, float]]) -> int:
    return max(sum(a <= start < b for a, b in found) for start, _ in found)


@pytest.mark.parametrize(("most", "available", "expected"), [(2, 1 << 50, 2), (4, 0, 1)])
def test_as_many_at_once_as_there_is_room(
    tmp_path: Path, most: int, available: int, expected: int
) -> None:
    """Without memory one runs still, and all get their turn."""
    jobs = [sleeper(tmp_path, f"j{k}", 0.3) for k in range(4)]
    ended: list[Ended] = []
    run_jobs(jobs, most=most, memory=Memory(1, lambda: available), ended=ended.append)
    assert sorted(one.job.name for one in ended) == ["j0", "j1", "j2", "j3"]
    assert all(one.code == 0 and one.seconds >= 0.3 for one in ended)
    assert most_at_once(spans(tmp_path, jobs)) == expected


def test_a_measured_peak_holds_the_next_back(tmp_path: Path) -> None:
    """The first is found to need more than is free: no second beside any."""
    memory = Memory(1, lambda: 1000)
    jobs = [sleeper(tmp_path, f"j{k}", 0.3) for k in range(3)]
    run_jobs(jobs[:1], most=2, memory=memory, ended=lambda _: memory.measured(5000))
    run_jobs(jobs[1:], most=2, memory=memory, ended=lambda _: None)
    assert most_at_once(spans(tmp_path, jobs[1:])) == 1


def test_an_error_in_between_stops_what_runs(tmp_path: Path) -> None:
    long, short = sleeper(tmp_path, "long", 60), sleeper(tmp_path, "short", 0)

    def ended(_: Ended) -> None:
        raise OSError("the disk is full")

    started = time.monotonic()
    with pytest.raises(OSError, match="disk is full"):
        run_jobs([long, short], most=2, memory=Memory(1, lambda: 1 << 50), ended=ended)
    assert time.monotonic() - started < 20
    assert not [p for p in psutil.Process().children() if "long" in " ".join(p.cmdline())]


@pytest.mark.parametrize(
    ("log", "code", "said"),
    [
        ("Note: a\nError: no\n  such thing\n", 2, "Error: no such thing"),
        ("Traceback ...\n  File x\nValueError: odd\n", 1, "ValueError: odd"),
        ("", 1, "exit code 1, without a word"),
        ("working\n", -9, "ended by signal 9, for lack of memory perhaps"),
        ("x" * 10_000 + "\nError: \xff", 1, "Error: \xff"),
    ],
)
def test_last_words(tmp_path: Path, log: str, code: int, said: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_words(Ended(Job("j", (), tmp_path / "log"), code, 0.0, 0)) == said
