"""Pairs of runs, seed by seed: against tables of Student's t, integrals, hand-worked numbers."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stages.report.numbers.paired
from stages.report.numbers.paired import paired, t_quantile

# As printed in tables of Student's t, two-sided 95 %.
T_TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
T_TABLE |= {9: 2.262, 10: 2.228, 19: 2.093, 20: 2.086, 29: 2.045, 30: 2.042, 60: 2.000, 120: 1.980}


def test_t_quantile() -> None:
    for freedom, known in T_TABLE.items():
        assert math.isclose(t_quantile(freedom), known, abs_tol=1e-3)
    # Closed forms of one and two degrees: tan(pi p / 2) and p sqrt(2 / (1 - p^2)).
    for p in (0.5, 0.9, 0.95, 0.99):
        assert math.isclose(t_quantile(1, p), math.tan(math.pi * p / 2), rel_tol=1e-9)
        assert math.isclose(t_quantile(2, p), p * math.sqrt(2 / (1 - p * p)), rel_tol=1e-9)
    assert math.isclose(t_quantile(9, 0.99), 3.250, abs_tol=1e-3)
    assert math.isclose(t_quantile(100_000), 1.96, abs_tol=1e-3)  # the normal
    for freedom, within in ((0, 0.95), (3, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match="Required"):
            t_quantile(freedom, within)


@given(st.integers(1, 60), st.floats(0.05, 0.995))
def test_t_quantile_against_the_integral_of_the_density(freedom: int, within: float) -> None:
    grid = np.linspace(0, t_quantile(freedom, within), 20_001)
    log_c = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    c = math.exp(log_c) / math.sqrt(freedom * math.pi)
    density = c * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
    assert math.isclose(2 * np.trapezoid(density, grid), within, abs_tol=1e-4)


def test_paired_by_hand() -> None:
    # d = .1, .2, .3: mean .2, sd sqrt((.01 + 0 + .01)/2) = .1, half 4.3027 * .1 / sqrt(3) = .2484
    mean, sd, n, lower, upper = paired([0.8, 0.9, 0.7], [0.7, 0.7, 0.4])
    assert math.isclose(mean, 0.2)
    assert math.isclose(sd, 0.1)
    assert n == 3
    assert math.isclose(lower, 0.2 - 0.24841, abs_tol=1e-5)
    assert math.isclose(upper, 0.2 + 0.24841, abs_tol=1e-5)


def test_pairing_removes_what_the_seeds_share() -> None:
    """Seeds differ by .3, the strategies by .05 in each: sure, though the two spreads overlap."""
    a, b = np.array([0.50, 0.65, 0.80]), np.array([0.45, 0.60, 0.75])
    found = paired(a, b)
    assert a.std() > 0.1
    assert math.isclose(found.lower, 0.05)
    assert math.isclose(found.upper, 0.05)


def test_too_few_seeds_have_no_interval() -> None:
    one = paired([0.75], [0.5])
    assert one[:1] + one[2:3] == (0.25, 1)
    assert all(math.isnan(v) for v in (one.sd, one.lower, one.upper))
    none = paired([], [])
    assert none.n == 0
    assert all(math.isnan(v) for v in (none.mean, none.sd, none.lower, none.upper))
    undefined = paired([0.5, math.nan, 0.5], [0.5, 0.5, 0.5])
    assert undefined.n == 3
    assert all(math.isnan(v) for v in (undefined.mean, undefined.lower, undefined.upper))


@pytest.mark.parametrize("b", [[0.5], [[0.5], [0.6]], 0.5])
def test_unpaired_values_are_refused(b: object) -> None:
    with pytest.raises(ValueError, match="Pairs need two vectors of one length"):
        paired([0.5, 0.6], b)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=2, max_size=8), st.floats(-1, 1))
def test_paired_swapped_and_shifted(values: list[tuple[float, float]], shift: float) -> None:
    a, b = np.array(values).T
    found, back, same = paired(a, b), paired(b, a), paired(a + shift, b + shift)
    assert found.lower <= found.mean <= found.upper
    np.testing.assert_allclose(
        [back.mean, back.sd, back.lower, back.upper],
        [-found.mean, found.sd, -found.upper, -found.lower],
        atol=1e-12,
    )
    np.testing.assert_allclose(same, found, atol=1e-9)


def test_the_interval_covers_95_in_100() -> None:
    """Of 4000 sets of five seeds; binomial sd 0.0034, so +-4 sd."""
    d = np.random.default_rng(0).normal(0.3, 2.0, (4000, 5))
    found = [paired(row, np.zeros(5)) for row in d]
    covered = np.mean([p.lower <= 0.3 <= p.upper for p in found])
    assert abs(covered - 0.95) < 0.014


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(stages.report.numbers.paired)
    assert result.attempted
    assert not result.failed
