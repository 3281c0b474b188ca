"""Re-randomization: when, which entries, and that kept entries come back bit for bit."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from iterand_tf.rerandomization import RerandomizationSchedule, redrawn_entries, rerandomize


@hypothesis.given(period=st.integers(1, 50), start=st.integers(-1, 200), length=st.integers(0, 200))
def test_events_are_the_multiples_of_the_period(period, start, length):
    stop = start + length
    steps = list(RerandomizationSchedule(period, 0.1).steps_between(start, stop))
    assert steps == [step for step in range(1, stop + 1) if step % period == 0 and step > start]


@pytest.mark.parametrize(("period", "rate"), [(0, 0.1), (300, 0.0)])
def test_never(period, rate):
    assert not RerandomizationSchedule(period, rate).steps_between(0, 10_000)


@pytest.mark.parametrize(("period", "rate"), [(-1, 0.1), (1.5, 0.1), (True, 0.1), (1, -0.1), (1, 1.1), (1, "0.1")])
def test_refuses_what_makes_no_sense(period, rate):
    with pytest.raises(ValueError, match="Received"):
        RerandomizationSchedule(period, rate)


def test_kept_entries_come_back_and_pruned_ones_are_redrawn_at_the_rate():
    draw = np.random.default_rng(0)
    kernel, fresh = draw.normal(size=(2, 200, 300)).astype(np.float32)
    mask = (draw.uniform(size=kernel.shape) < 0.4).astype(np.float32)
    result = np.asarray(rerandomize(kernel, mask, fresh, rate=0.1, seed=7))
    redrawn = np.asarray(redrawn_entries(mask, rate=0.1, seed=7))
    np.testing.assert_array_equal(result, np.where(redrawn, fresh, kernel))
    assert not redrawn[mask == 1].any()
    pruned = (mask == 0).sum()
    assert abs(redrawn.sum() - 0.1 * pruned) < 5 * np.sqrt(pruned * 0.1 * 0.9)


def test_rate_one_redraws_all_and_rate_zero_none():
    mask = np.array([1.0, 0.0, 0.0], np.float32)
    assert np.asarray(redrawn_entries(mask, 1.0, seed=0)).tolist() == [False, True, True]
    assert not np.asarray(redrawn_entries(mask, 0.0, seed=0)).any()
