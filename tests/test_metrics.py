"""Figures of the R matrix and the confusion matrix, against hand-worked numbers and brute force."""

from __future__ import annotations

import doctest
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stages.train.confusion
from stages.train.confusion import (
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
    recall,
)
from stages.train.metrics import (
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    learning_accuracy,
)

R = np.array([[0.9, 0.4, 0.5], [0.6, 0.8, 0.3], [0.7, 0.5, 1.0]])
UNTRAINED = np.array([0.5, 0.5, 0.25])


def test_by_hand() -> None:
    assert math.isclose(average_accuracy(R), (0.7 + 0.5 + 1.0) / 3)
    assert math.isclose(forgetting(R), ((0.9 - 0.7) + (0.8 - 0.5)) / 2)
    assert math.isclose(backward_transfer(R), ((0.7 - 0.9) + (0.5 - 0.8)) / 2)
    assert math.isclose(forward_transfer(R, UNTRAINED), ((0.4 - 0.5) + (0.3 - 0.25)) / 2)


def test_the_best_not_the_first_is_forgotten() -> None:
    """.6 -> .9 -> .5 forgets 0.4 (Chaudhry), though BWT is only -0.1."""
    r = np.array([[0.6, 0, 0], [0.9, 0.7, 0], [0.5, 0.7, 0.9]])
    assert math.isclose(forgetting(r), 0.2)
    assert math.isclose(backward_transfer(r), -0.05)


def test_forgetting_looks_only_at_rows_since_the_task_was_met() -> None:
    r = np.array([[0.5, 0.99, 0.0], [0.5, 0.6, 0.0], [0.5, 0.6, 0.9]])
    assert math.isclose(forgetting(r), 0.0, abs_tol=1e-12)


def test_forgetting_may_be_negative() -> None:
    r = np.array([[0.5, 0.0], [0.8, 0.9]])
    assert math.isclose(forgetting(r), -0.3)


def test_undefined_is_nan() -> None:
    joint = np.full((3, 3), np.nan)
    joint[2] = [0.9, 0.8, 1.0]
    assert math.isclose(average_accuracy(joint), 0.9)
    assert math.isnan(forgetting(joint))
    assert math.isnan(backward_transfer(joint))
    assert math.isnan(forward_transfer(joint, UNTRAINED))
    one = np.array([[0.7]])
    assert math.isnan(forgetting(one))
    assert math.isnan(backward_transfer(one))
    assert math.isnan(average_incremental_accuracy(joint))
    assert math.isnan(learning_accuracy(joint))
    assert average_incremental_accuracy(one) == learning_accuracy(one) == 0.7


def test_along_the_way_by_hand() -> None:
    # A_0 = .9, A_1 = (.6+.8)/2 = .7, A_2 = (.7+.5+1)/3 = 2.2/3; what is above the diagonal is not
    # read: (.9 + .7 + .7333...)/3 = .7777...
    assert math.isclose(average_incremental_accuracy(R), 7 / 9)
    assert math.isclose(learning_accuracy(R), 0.9)  # (.9 + .8 + 1)/3
    below = np.where(np.tril(np.ones((3, 3))) > 0, R, np.nan)
    assert math.isclose(average_incremental_accuracy(below), 7 / 9)
    below[1, 0] = np.nan
    assert math.isnan(average_incremental_accuracy(below))
    assert math.isclose(learning_accuracy(below), 0.9)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_along_the_way_against_brute_force(tasks: int, seed: int) -> None:
    r = np.random.default_rng(seed).random((tasks, tasks))
    rows = [sum(r[i][j] for j in range(i + 1)) / (i + 1) for i in range(tasks)]
    assert math.isclose(average_incremental_accuracy(r), sum(rows) / tasks)
    if tasks > 1:
        final = learning_accuracy(r) + (tasks - 1) / tasks * backward_transfer(r)
        assert math.isclose(average_accuracy(r), final)


# Class 0: six rows, 3 right, 2 called class 1, 1 called class 2.  Class 1: four rows, all right.
# Class 2: two rows, both called class 0.  Class 3: no row.
TARGETS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
ANSWERED = np.array([0, 0, 0, 1, 1, 2, 1, 1, 1, 1, 0, 0])
CONFUSION = np.array([[3, 2, 1, 0], [0, 4, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])


def test_confusion_by_hand() -> None:
    found = confusion_matrix(TARGETS, ANSWERED, 4)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, CONFUSION)
    np.testing.assert_array_equal(recall(found), [3 / 6, 4 / 4, 0 / 2, np.nan])
    assert math.isclose(balanced_accuracy(found), (0.5 + 1 + 0) / 3)  # accuracy: 7/12
    # Class 0: TP 3, FP 2, FN 3: 6/11.  Class 1: TP 4, FP 2, FN 0: 8/10.  Class 2: TP 0: 0.
    assert math.isclose(macro_f1(found), (6 / 11 + 8 / 10 + 0) / 3)


def test_a_class_never_answered_counts_as_zero() -> None:
    constant = np.array([[7, 0], [3, 0]])  # F1: 14/(14+3+0) and 0/(0+0+3); recall 1 and 0
    assert math.isclose(macro_f1(constant), (14 / 17 + 0) / 2)
    assert balanced_accuracy(constant) == 0.5


def test_a_class_without_rows_is_left_out_though_answered() -> None:
    absent = np.array([[3, 1], [0, 0]])  # class 0: TP 3, FP 0, FN 1: 6/7
    assert math.isclose(macro_f1(absent), 6 / 7)
    assert balanced_accuracy(absent) == 0.75


def test_no_row_at_all_is_nan() -> None:
    nothing = confusion_matrix(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 3)
    np.testing.assert_array_equal(nothing, np.zeros((3, 3)))
    assert np.isnan(recall(nothing)).all()
    assert math.isnan(macro_f1(nothing))
    assert math.isnan(balanced_accuracy(nothing))


labelled = st.integers(1, 5).flatmap(
    lambda c: st.tuples(
        st.just(c),
        st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=40),
    )
)


@given(labelled)
def test_confusion_against_brute_force(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = case
    targets, answered = np.array(pairs).T
    found = confusion_matrix(targets, answered, classes)
    assert found.sum() == len(pairs)
    recalls, f1s = [], []
    for k in range(classes):
        for c in range(classes):
            assert found[k, c] == sum(pair == (k, c) for pair in pairs)
        true = [pair for pair in pairs if pair[0] == k]
        said = [pair for pair in pairs if pair[1] == k]
        right = sum(pair == (k, k) for pair in pairs)
        if not true:
            assert math.isnan(recall(found)[k])
            continue
        recalls.append(right / len(true))
        assert math.isclose(recall(found)[k], recalls[-1])
        # F1 as the harmonic mean of precision and recall, 0 where one of them is 0.
        f1s.append(2 / (len(said) / right + len(true) / right) if right else 0.0)
    assert math.isclose(balanced_accuracy(found), sum(recalls) / len(recalls), abs_tol=1e-12)
    assert math.isclose(macro_f1(found), sum(f1s) / len(f1s), abs_tol=1e-12)
    assert 0 <= macro_f1(found) <= 1


@given(labelled, st.randoms(use_true_random=False))
def test_order_of_rows_and_names_of_classes_do_not_matter(
    case: tuple[int, list[tuple[int, int]]], random: Random
) -> None:
    classes, pairs = case
    targets, answered = np.array(pairs).T
    found = confusion_matrix(targets, answered, classes)
    cut = len(pairs) // 2  # matrices of parts add up
    first = confusion_matrix(targets[:cut], answered[:cut], classes)
    last = confusion_matrix(targets[cut:], answered[cut:], classes)
    np.testing.assert_array_equal(found, first + last)
    names = np.array(random.sample(range(classes), classes))
    renamed = confusion_matrix(names[targets], names[answered], classes)
    np.testing.assert_array_equal(renamed[np.ix_(names, names)], found)
    assert math.isclose(macro_f1(renamed), macro_f1(found), abs_tol=1e-12)
    assert math.isclose(balanced_accuracy(renamed), balanced_accuracy(found), abs_tol=1e-12)


cases = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))


HEADS = [range(0, 2), range(2, 5)]


LOGITS = np.zeros((2, 3))


def test_confusion_refuses() -> None:
    ok = np.array([0, 1])
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 2\), got -1 to 1"):
        confusion_matrix(np.array([-1, 1]), ok, 2)
    with pytest.raises(ValueError, match="answered must lie in"):
        confusion_matrix(ok, np.array([0, 2]), 2)
    with pytest.raises(ValueError, match="2 targets and 1 answers"):
        confusion_matrix(ok, ok[:1], 2)
    with pytest.raises(ValueError, match="must be integers"):
        confusion_matrix(ok, ok.astype(float), 2)
    for wrong in (np.ones((2, 3), int), np.ones(4, int), -np.eye(2, dtype=int), np.eye(2)):
        with pytest.raises(ValueError, match="A confusion matrix is square"):
            macro_f1(wrong)


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(stages.train.confusion)
    assert result.attempted
    assert not result.failed
