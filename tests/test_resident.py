"""Latents in memory and left on disk: the same rows, each once a pass, and no other task's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache.errors import CacheDamagedError
from cache.reader import Cache
from cache.store import STORES
from stages.train.disk import OnDisk, Reader
from stages.train.evaluation import judge
from stages.train.figures import figures
from stages.train.loop import run
from stages.train.networks import mean_and_deviation
from stages.train.scenario import Scenario, make_scenario
from stages.train.seeds import generator
from stages.train.validation import hold_out
from stages.train.view import Batch, Data, TaskView
from tests.making import make_cache
from tests.world import ALL, make_method, make_setup, make_world

ROW = 12 * 4
"""Bytes of a latent."""
EVERYTHING, LITTLE = 1000 * ROW, 32 * ROW
"""Memory for a task of 96 rows as a whole; for windows of 12."""


@pytest.fixture(scope="module", params=STORES)
def stored(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """The latents of `make_world()`, in chunks of 8 rows."""
    out = tmp_path_factory.mktemp("resident") / request.param
    make_cache(out, request.param, make_world()[0].latents.numpy(), shard_rows=8)
    with Cache(out) as cache:
        yield cache


def on_disk(cache: Cache, data: Data, memory: int = LITTLE) -> OnDisk:
    return OnDisk(Reader(cache), data.targets, data.crops, memory)


def positions_of(batches: list[Batch], data: Data, scenario: Scenario) -> list[int]:
    """Which rows came, after a look at what goes with each."""
    place = {tuple(row): k for k, row in enumerate(data.latents.tolist())}
    assert len(place) == len(data.latents)
    rows = [place[tuple(row)] for b in batches for row in b.latents.tolist()]
    assert torch.cat([b.targets for b in batches]).tolist() == scenario.targets[rows].tolist()
    task_of = {row: task.index for task in scenario.tasks for row in task.train_rows.tolist()}
    assert [task_of[row] for row in rows] == torch.cat([b.tasks for b in batches]).tolist()
    if data.crops is not None:
        crops = torch.cat([b.pictures() for b in batches])
        assert torch.equal(crops, data.crops[rows])
    return rows


def passes_of(rows: list[int], size: int) -> list[list[int]]:
    return [rows[k : k + size] for k in range(0, len(rows), size)]


@given(st.integers(1, 30), st.integers(1, 150))
@settings(max_examples=30)
def test_from_memory_come_the_rows_of_one_permutation_a_pass(count: int, size: int) -> None:
    data, scenario = make_world()
    view = TaskView(data, scenario.tasks)  # as joint: 192 rows
    stream, order = generator(0, "b"), torch.empty(0, dtype=torch.int64)
    wanted = torch.from_numpy(np.concatenate([task.train_rows for task in scenario.tasks]))
    for batch in view.batches(count, size, generator(0, "b")):
        while len(order) < size:
            order = torch.cat([order, torch.randperm(192, generator=stream)])
        rows = wanted[order[:size]]
        assert torch.equal(batch.latents, data.latents[rows])
        assert positions_of([batch], data, scenario) == rows.tolist()
        order = order[size:]


@given(
    count=st.integers(1, 12),
    size=st.integers(1, 70),
    memory=st.integers(1, 300),
    tasks=st.sampled_from([(0,), (1,), (0, 1)]),
)
@settings(max_examples=40)
def test_a_pass_from_disk_visits_each_row_once(
    stored: Cache, count: int, size: int, memory: int, tasks: tuple[int, ...]
) -> None:
    data, scenario = make_world()
    disk = on_disk(stored, data, memory * ROW)
    view = TaskView(disk, tuple(scenario.tasks[k] for k in tasks))
    batches = list(view.batches(count, size, generator(0, "b")))
    assert [len(b.targets) for b in batches] == [size] * count
    own = {row for k in tasks for row in scenario.tasks[k].train_rows.tolist()}
    for one_pass in passes_of(positions_of(batches, data, scenario), len(own)):
        assert set(one_pass) <= own
        assert max(Counter(one_pass).values()) == 1
    again = view.batches(count, size, generator(0, "b"))
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(batches, again, strict=True))


def test_a_task_that_fits_comes_from_disk_as_from_memory(stored: Cache) -> None:
    data, scenario = make_world()
    first, second = (
        list(TaskView(one, scenario.tasks[1:]).batches(30, 16, generator(0, "b")))
        for one in (data, on_disk(stored, data, EVERYTHING))
    )
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a.tasks, b.tasks) for a, b in zip(first, second, strict=True))


def test_windows_are_shuffled_and_come_in_another_order_each_pass(stored: Cache) -> None:
    """96 rows, windows of 12: neighbours on disk are no neighbours, and no pass is the last."""
    data, scenario = make_world()
    disk = on_disk(stored, data)
    assert disk.window_rows == 12
    view = TaskView(disk, scenario.tasks[:1])
    rows = positions_of(list(view.batches(30, 16, generator(0, "b"))), data, scenario)
    passes = passes_of(rows, 96)
    assert len({tuple(one) for one in passes}) == 5
    for one in passes:
        steps = np.diff(one)
        assert (steps > 0).mean() < 0.7
        assert np.ptp(one[:12]) > 40  # a window is of several chunks
    other = positions_of(list(view.batches(30, 16, generator(1, "b"))), data, scenario)
    assert other != rows
    bigger = TaskView(on_disk(stored, data, 2 * LITTLE), scenario.tasks[:1])
    assert positions_of(list(bigger.batches(30, 16, generator(0, "b"))), data, scenario) != rows


class Asked(Reader):
    """A reader that remembers."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.rows: list[int] = []
        self.most = 0

    def fill(self, out: Any, rows: Any) -> None:
        self.rows += rows.tolist()
        self.most = max(self.most, len(rows))
        super().fill(out, rows)


@pytest.mark.parametrize("name", [n for n in ALL if n != "joint"])
def test_no_strategy_reads_another_tasks_rows_from_disk(stored: Cache, name: str) -> None:
    """Nor more at a time than its windows have, but for what a buffer is offered."""
    data, scenario = make_world()
    reader = Asked(stored)
    disk = OnDisk(reader, data.targets, data.crops, LITTLE)
    method = make_method(name, make_setup(scenario, iters=12))
    method.learn(TaskView(disk, scenario.tasks[:1]))
    assert set(reader.rows) == set(scenario.tasks[0].train_rows.tolist())
    assert reader.most == (96 if name in ("lr", "nr") else 12)
    if name == "none":  # 12 x 16 visits: two passes, and nothing is read beyond them
        assert len(reader.rows) == 12 * 16


@pytest.mark.parametrize("name", ALL)
def test_strategies_learn_from_disk_and_repeat_to_the_last_bit(stored: Cache, name: str) -> None:
    data, scenario = make_world()
    entries = []
    for _ in range(2):
        method = make_method(name, make_setup(scenario))
        entries.append(figures(run(method, on_disk(stored, data), scenario), scenario))
        entries[-1].pop("train_seconds")
    assert entries[0] == entries[1]
    assert entries[0]["accuracy_matrix"][-1][1] > 0.85
    whole = figures(
        run(make_method(name, make_setup(scenario)), on_disk(stored, data, EVERYTHING), scenario),
        scenario,
    )
    resident = figures(run(make_method(name, make_setup(scenario)), data, scenario), scenario)
    for entry in (whole, resident):
        entry.pop("train_seconds")
    assert whole == resident


@pytest.mark.parametrize("memory", [ROW, LITTLE, EVERYTHING])
def test_answers_are_the_same_from_memory_and_from_disk(stored: Cache, memory: int) -> None:
    """Test rows in any order, in parts of 1, 2 and all."""
    data, scenario = make_world("class")
    order = np.random.default_rng(0).permutation
    tasks = tuple(
        type(task)(task.index, task.classes, task.columns, task.train_rows, order(task.test_rows))
        for task in scenario.tasks
    )
    mixed = Scenario(scenario.name, tasks, scenario.class_order, scenario.targets)
    method = make_method("none", make_setup(mixed))
    method.learn(TaskView(data, mixed.tasks[:1]))
    disk = on_disk(stored, data, memory)
    for _ in range(2):  # the second time perhaps of rows that were kept
        found, wanted = (judge(method, one, mixed, 2) for one in (disk, data))
        assert np.array_equal(found.answers, wanted.answers)
        assert len(set(found.answers.tolist())) > 1
        assert found.also is not None
        assert wanted.also is not None
        assert np.array_equal(found.also, wanted.also)


def test_early_stopping_looks_at_rows_on_disk(stored: Cache) -> None:
    data, scenario = make_world()
    everything = np.concatenate([task.train_rows for task in scenario.tasks])
    labels = data.targets.numpy()
    train, aside = hold_out(everything, labels, np.full(len(labels), -1), 0.25)
    test = np.concatenate([task.test_rows for task in scenario.tasks])
    split = make_scenario("task", "abcd", labels, train, test, [("a", "b"), ("c", "d")], aside)
    kept = []
    for memory in (LITTLE, EVERYTHING):
        reader = Asked(stored)
        disk = OnDisk(reader, data.targets, None, memory)
        method = make_method("none", make_setup(split, iters=1000, early_stopping=2))
        method.learn(TaskView(disk, split.tasks[:1]))
        held = split.tasks[0].validation_rows.tolist()
        times = Counter(reader.rows)[held[0]]
        assert {Counter(reader.rows)[row] for row in held} == {times}
        kept.append(times)
        assert not set(reader.rows) & set(split.tasks[1].validation_rows.tolist())
    assert kept[0] > kept[1] == 1  # what fits is read once


@pytest.mark.parametrize("place", ["meta", "cpu"])
def test_nothing_of_the_device_is_read_while_batches_are_made(place: str) -> None:
    """A meta tensor has no values: whoever reads one fails, as a GPU would make everybody wait.
    The latents are there too, or in main memory."""
    data, scenario = make_world()
    device = torch.device("meta")
    there = Data(data.latents.to(place), data.targets.to(device), data.crops)
    with pytest.raises((RuntimeError, NotImplementedError)):
        int(there.targets.max())
    batches = list(TaskView(there, scenario.tasks).batches(30, 16, generator(0, "b")))
    assert len(batches) == 30
    for batch in batches:
        assert batch.latents.shape == (16, 12)
        assert {t.device for t in (batch.latents, batch.targets, batch.tasks)} == {device}


def test_a_damaged_row_is_told_and_no_thread_stays(
    stored: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, scenario = make_world()
    view = TaskView(on_disk(stored, data), scenario.tasks[:1])
    half = view.batches(30, 16, generator(0, "b"))
    next(half)
    half.close()  # type: ignore[attr-defined]
    whole = stored.bulk_rows

    def damaged(start: int, stop: int) -> Any:
        if start <= 100 < stop:
            raise CacheDamagedError("row 100 does not have its digest")
        return whole(start, stop)

    monkeypatch.setattr(stored, "bulk_rows", damaged)
    with pytest.raises(CacheDamagedError, match="row 100"):
        list(view.batches(30, 16, generator(0, "b")))
    assert not [t for t in threading.enumerate() if t.name.startswith("latents")]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.floats(-1e4, 1e4))
@settings(max_examples=30)
def test_mean_and_deviation_of_parts(sizes: list[int], far: float) -> None:
    values = np.random.default_rng(0).normal(far, 1, (sum(sizes), 3)).astype(np.float32)
    parts: tuple[Tensor, ...] = torch.split(torch.from_numpy(values), sizes)
    mean, deviation = mean_and_deviation(parts)
    exact = values.astype(np.float64)
    assert np.allclose(mean.numpy(), exact.mean(0), rtol=1e-12, atol=1e-9)
    assert np.allclose(deviation.numpy(), exact.std(0), rtol=1e-9, atol=1e-9)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    rows = make_world()[0].latents.numpy().astype(np.float16)
    make_cache(tmp_path / "half", "zarr", rows, shard_rows=8)
    with Cache(tmp_path / "half") as cache:
        asked = np.array([239, 3, 3, 80, 0])
        found = Reader(cache)[asked]
    assert found.dtype == np.float32
    assert np.array_equal(found, rows[asked].astype(np.float32))
