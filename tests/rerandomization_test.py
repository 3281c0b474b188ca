"""Re-randomization: when, which entries, and that kept entries come back bit for bit."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from iterand_tf.rerandomization import MODES, Blended, RerandomizationSchedule, redrawn_entries, rerandomize


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


def test_periods_and_rates_may_be_functions_of_the_step():
    schedule = RerandomizationSchedule(lambda step: 10 if step < 30 else 50, lambda step: 1 / (1 + step), last_step=150)
    assert list(schedule.steps_between(0, 1000)) == [10, 20, 30, 80, 130]
    assert list(schedule.steps_between(20, 80)) == [30, 80]
    assert schedule.rate_at(9) == 0.1
    cosine = RerandomizationSchedule(10, keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100))
    assert [round(cosine.rate_at(step), 6) for step in (0, 50, 100)] == [0.1, 0.05, 0.0]
    with pytest.raises(ValueError, match="rate must be"):
        RerandomizationSchedule(10, lambda step: 2.0).rate_at(0)
    with pytest.raises(ValueError, match="period must be at least 1"):
        RerandomizationSchedule(lambda step: 0, 0.1).steps_between(0, 10)


def test_nothing_after_the_last_step():
    assert list(RerandomizationSchedule(10, 0.1, last_step=25).steps_between(0, 100)) == [10, 20]


KERNEL, MASK, FRESH = (np.array(row, np.float32) for row in ([1, 2, 3, 4], [1, 0, 0, 1], [5, 6, 7, 8]))


def test_modes():
    replaced = {
        name: np.asarray(RerandomizationSchedule(1, 1.0, name).replacement(KERNEL, MASK, FRESH, 0)) for name in MODES
    }
    np.testing.assert_array_equal(replaced["draw"], FRESH)
    np.testing.assert_allclose(replaced["blend"], (KERNEL + FRESH) * np.sqrt(0.5), rtol=1e-6)
    assert set(replaced["recycle"].tolist()) <= {1.0, 4.0}
    np.testing.assert_allclose(Blended(0.9, 0.1)(KERNEL, MASK, FRESH, 0), 0.9 * KERNEL + 0.1 * FRESH, rtol=1e-6)
    many = np.asarray(MODES["recycle"](KERNEL.repeat(999), MASK.repeat(999), FRESH.repeat(999), 1))
    assert 0.45 < (many == 1).mean() < 0.55
    np.testing.assert_array_equal(MODES["recycle"](KERNEL, np.zeros(4), FRESH, 0), FRESH)
    with pytest.raises(ValueError, match="mode must be one of draw, blend, recycle"):
        RerandomizationSchedule(1, 1.0, "twice")
