"""Which classes and rows a task gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Refused
from stages.train.grouping import cut_classes, group_classes, shuffled
from stages.train.scenario import Scenario, average_floor, majority_floor, make_scenario

TABLE = [
    # classes, tasks, sizes
    (8, 4, [2, 2, 2, 2]),
    (8, 1, [8]),
    (8, 8, [1] * 8),
    (7, 4, [2, 2, 2, 1]),  # RAF-DB in the paper
    (5, 2, [3, 2]),
    (10, 3, [4, 3, 3]),
]


@pytest.mark.parametrize(("classes", "tasks", "sizes"), TABLE)
def test_sizes(classes: int, tasks: int, sizes: list[int]) -> None:
    names = [f"c{k}" for k in range(classes)]
    groups = cut_classes(names, tasks, uneven=True)
    assert [len(group) for group in groups] == sizes
    assert [name for group in groups for name in group] == names
    if len(set(sizes)) == 1:
        assert cut_classes(names, tasks, uneven=False) == groups


def test_uneven_needs_consent_and_is_explained() -> None:
    with pytest.raises(Refused) as caught:
        cut_classes("abcdefg", 4, uneven=False)
    for part in ("7 classes", "task 4: g", "one class", "--uneven", "--tasks 1 or 7"):
        assert part in str(caught.value)


@pytest.mark.parametrize("tasks", [0, 9])
def test_impossible_numbers(tasks: int) -> None:
    with pytest.raises(Refused, match="between 1 and 8"):
        cut_classes("abcdefgh", tasks, uneven=True)


def _scenario(labels: list[int], test: list[int], name: str = "task") -> Scenario:
    array = np.array(labels)
    rows = np.arange(len(labels))
    is_test = np.isin(rows, test)
    groups = [("a", "b"), ("c", "d")]
    return make_scenario(
        name,  # type: ignore[arg-type]
        ["b", "a", "d", "c"],
        array,
        rows[~is_test],
        rows[is_test],
        groups,
    )


@given(st.lists(st.integers(0, 3), min_size=40, max_size=80))
def test_rows_are_disjoint_and_complete(labels: list[int]) -> None:
    labels = [*range(4), *range(4), *labels]
    scenario = _scenario(labels, [0, 1, 2, 3, 10, 20])
    train = np.concatenate([task.train_rows for task in scenario.tasks])
    test = np.concatenate([task.test_rows for task in scenario.tasks])
    assert sorted([*train, *test]) == list(range(len(labels)))
    names = ["b", "a", "d", "c"]
    for task in scenario.tasks:
        for row in [*task.train_rows, *task.test_rows]:
            assert names[labels[row]] in task.classes
            assert scenario.class_order[scenario.targets[row]] == names[labels[row]]
            assert scenario.targets[row] in task.columns


def test_a_class_without_test_rows_is_refused() -> None:
    with pytest.raises(Refused, match="no test row of c"):
        _scenario([0, 1, 2, 3, 0, 1, 2], [4, 5, 6])


def test_floors_by_hand() -> None:
    # test rows: task 1 has b b b a, task 2 has d c
    labels = [0, 1, 2, 3, 0, 0, 0, 1, 2, 3]
    scenario = _scenario(labels, list(range(4, 10)))
    assert [majority_floor(scenario, t) for t in scenario.tasks] == [0.75, 0.5]
    assert average_floor(scenario) == 0.625
    assert average_floor(_scenario(labels, list(range(4, 10)), "class")) == 0.375
    # domain: outputs are "first of its task": 3/4 and 1/2 of the rows are b, d (second); a, c first
    domain = _scenario(labels, list(range(4, 10)), "domain")
    assert domain.outputs == 2
    assert average_floor(domain) == (0.75 + 0.5) / 2


def test_domain_incrementally_all_tasks_share_their_outputs() -> None:
    domain = _scenario([0, 1, 2, 3] * 5, [0, 1, 2, 3], "domain")
    assert [task.columns for task in domain.tasks] == [range(2), range(2)]
    assert domain.targets[:4].tolist() == [1, 0, 1, 0]  # b a d c in groups (a b) (c d)
    task = _scenario([0, 1, 2, 3] * 5, [0, 1, 2, 3], "task")
    for one, other in zip(domain.tasks, task.tasks, strict=True):
        assert np.array_equal(one.train_rows, other.train_rows)


def test_class_orders() -> None:
    names = [f"c{k}" for k in range(6)]
    assert group_classes(names, 3, "natural", uneven=False) == cut_classes(names, 3, uneven=False)
    seeded = group_classes(names, 3, "7", uneven=False)
    assert [n for g in seeded for n in g] == shuffled(names, 7)
    assert sorted(shuffled(names, 7)) == names
    assert len({tuple(shuffled(names, seed)) for seed in range(20)}) > 15
    assert group_classes(names, 9, "c5, c0; c1,c2", uneven=False) == [("c5", "c0"), ("c1", "c2")]


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("c0,c9", "there is no class c9"),
        ("backwards", "natural, a seed, or groups such as c0,c1;c2,c3"),
        ("c0,c1;", "natural, a seed, or groups"),
        ("c0,c1;c1,c2", "names c1 more than once"),
        ("c0,c1;c2", "task 2: c2. A task of one class"),
    ],
)
def test_class_orders_that_do_not_fit(order: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        group_classes([f"c{k}" for k in range(6)], 3, order, uneven=False)


def test_classes_in_no_group_are_in_no_task() -> None:
    rows = np.arange(20)
    scenario = make_scenario("class", "abcd", rows % 4, rows[4:], rows[:4], [("d",), ("b",)])
    assert scenario.class_order == ("d", "b")
    assert scenario.targets[:4].tolist() == [-1, 1, -1, 0]
    assert sum(len(task.train_rows) for task in scenario.tasks) == 8
