"""Distributions: values, moments, and draws that are functions of their seed."""

import math

import numpy as np
import pytest

from iterand_tf import distributions

SHAPE = (3, 3, 16, 200)
FAN_IN = 3 * 3 * 16
BOUND = {
    "signed_constant": math.sqrt(2 / FAN_IN),
    "kaiming_uniform": math.sqrt(6 / FAN_IN),
    "kaiming_normal": math.inf,
    "uniform": 1.0,
}
STD = {name: math.sqrt(2 / FAN_IN) for name in distributions.NAMES} | {"uniform": 1 / math.sqrt(3)}


def test_the_tables_here_hold_every_distribution():
    assert set(BOUND) == set(STD) == set(distributions.NAMES)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("name", distributions.NAMES)
def test_values(name, scale):
    kernel = np.asarray(distributions.sample(name, SHAPE, seed=3, scale=scale))
    assert kernel.shape == SHAPE
    assert kernel.dtype == np.float32
    assert np.abs(kernel).max() <= BOUND[name] * scale * (1 + 1e-6)
    assert kernel.std() == pytest.approx(STD[name] * scale, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * kernel.std() + 5 * kernel.std() / math.sqrt(kernel.size)


def test_signed_constant_has_two_values():
    kernel = np.asarray(distributions.sample("signed_constant", SHAPE, seed=0))
    np.testing.assert_array_equal(np.unique(kernel), np.float32([-1, 1]) * np.float32(BOUND["signed_constant"]))


@pytest.mark.parametrize("name", distributions.NAMES)
def test_a_draw_is_a_function_of_its_seed(name):
    first, again, other = (np.asarray(distributions.sample(name, SHAPE, seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_refuses_what_is_out_of_range():
    with pytest.raises(ValueError, match="one of signed_constant"):
        distributions.sample("gaussian", (2, 2), seed=0)
    for scale in (0, -1, math.inf, math.nan, "1"):
        with pytest.raises(ValueError, match="scale must be"):
            distributions.sample("uniform", (2, 2), seed=0, scale=scale)
