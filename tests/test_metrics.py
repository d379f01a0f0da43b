"""The R matrix's figures against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np

from stages.train.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer

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
