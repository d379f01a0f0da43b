"""Rows put aside for choosing, and what is judged on which rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache.errors import Refused
from stages.train.evaluation import judge
from stages.train.loop import run
from stages.train.scenario import make_scenario
from stages.train.validation import hold_out
from stages.train.view import Data, TaskView
from stages.train.watch import Watch
from tests.world import make_method, make_setup, make_world


def test_validation_rows_are_never_learnt_and_early_stopping_looks_at_them() -> None:
    data, scenario = make_world()
    everything = np.concatenate([task.train_rows for task in scenario.tasks])
    labels = data.targets.numpy()
    train, aside = hold_out(everything, labels, np.full(len(labels), -1), 0.25)
    assert set(train) | set(aside) == set(everything)
    assert not set(train) & set(aside)
    for label in range(4):
        mine = int((labels[everything] == label).sum())
        assert (labels[aside] == label).sum() == round(0.25 * mine)
    test = np.concatenate([task.test_rows for task in scenario.tasks])
    groups = [("a", "b"), ("c", "d")]
    split = make_scenario("task", "abcd", labels, train, test, groups, aside)
    poisoned = Data(data.latents.clone(), data.targets)
    poisoned.latents[torch.from_numpy(aside)] = float("nan")
    for world in (data, poisoned):
        method = make_method("none", make_setup(split))
        run(method, world, split)
        assert torch.isfinite(method.logits(data.latents)).all()
    ticks: list[int] = []

    class Counting(Watch):
        def tick(self) -> None:
            ticks.append(1)

    setup = make_setup(split, iters=1000, early_stopping=2, watch=Counting())
    method = make_method("none", setup)
    method.learn(TaskView(data, split.tasks[:1]))
    assert 100 <= len(ticks) < 1000
    assert len(ticks) % 50 == 0


@given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.floats(0.05, 0.5))
@settings(max_examples=30)
def test_people_are_held_out_as_a_whole(subjects: list[int], share: float) -> None:
    people = np.array(subjects)
    labels = np.arange(len(people)) % 2
    rows = np.arange(len(people))
    try:
        train, aside = hold_out(rows, labels, people, share)
    except Refused:
        assert len(set(subjects)) < 10 or share > 0.3
        return
    assert not set(people[train]) & set(people[aside])
    assert sorted([*train, *aside]) == rows.tolist()
    for label in (0, 1):
        mine = labels == label
        assert (labels[aside] == label).sum() >= max(1, round(share * int(mine.sum())))
    again = hold_out(rows, labels, people, share)
    assert np.array_equal(again[1], aside)


class _Fixed:
    """Answers the logits that it was given, whatever the latents: row k asks about row k."""

    schedule = "sequential"

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def logits(self, latents: Tensor) -> Tensor:
        return self.table[latents[:, 0].long()]


def test_both_scenarios_from_the_same_logits_by_hand() -> None:
    """Two tasks of two classes, a test row of each class.  Row 1 prefers class 2 over its own."""
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    groups = [("a", "b"), ("c", "d")]
    table = torch.tensor(
        [[9.0, 0, 0, 0], [0, 5, 8, 0], [0, 0, 1, 2], [0, 0, 0, 1]], dtype=torch.float32
    )
    data = Data(torch.arange(8.0)[:, None], torch.from_numpy(labels))
    asked: Any = _Fixed(table)
    for name, main, also in (
        ("task", [1.0, 0.5], [0.5, 0.5]),
        ("class", [0.5, 0.5], [1.0, 0.5]),
    ):
        scenario = make_scenario(
            name,
            "abcd",
            labels,
            np.arange(4, 8),
            np.arange(4),
            groups,  # type: ignore[arg-type]
        )
        judged = judge(asked, data, scenario, 2)
        assert judged.accuracy.tolist() == main
        assert judged.also_accuracy is not None
        assert judged.also_accuracy.tolist() == also
        early = judge(asked, data, scenario, 1)  # class 2 was not met: row 1 may not answer it
        classes_seen = early.accuracy if name == "class" else early.also_accuracy
        assert classes_seen is not None
        assert classes_seen[0] == 1.0
        assert np.isnan(classes_seen[1])
