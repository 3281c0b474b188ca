"""The search for draws: what a Subnet layer drew is found, and nothing else."""

import numpy as np
import pytest

import iterand_tf
from export.draws import find_draws
from export.pack import decode, encode_drawn
from export.philox import uniform_at


def after_events(count, dtype=None, **options):
    """A kernel whose scores are new before each of so many re-randomizations, and whose mask is new after them."""
    method = iterand_tf.Supermask(0.6, **options)
    layer = iterand_tf.SubnetDense(30, method=method, seed=3, name="layer", dtype=dtype)
    layer.build((None, 40))
    draw = np.random.default_rng(0)
    for step in range(count + 1):
        layer.scores.assign(draw.normal(size=layer.scores.shape))
        if step < count:
            layer.rerandomize(step, 0.3)
    return layer.subnet_kernels[0]


@pytest.mark.parametrize("events", [0, 1, 20])
@pytest.mark.parametrize("distribution", ["kaiming_uniform", "uniform", "signed_constant"])
def test_all_entries_are_found(distribution, events):
    kernel = after_events(events, weight_distribution=distribution, weight_scale=1.3)
    values = np.asarray(kernel.baked())
    drawn = find_draws(values, kernel)
    assert len(drawn.index) == kernel.num_kept
    assert list(np.bincount(drawn.index)) == sorted(np.bincount(drawn.index), reverse=True)
    assert len(drawn.seeds) <= (1 if distribution == "signed_constant" else events + 1)
    assert (len(drawn.seeds) > 1) == (distribution != "signed_constant" and events > 0)
    np.testing.assert_array_equal(decode(encode_drawn(values, drawn)), values)


def test_what_cannot_be_drawn_again_is_not_found():
    trained = after_events(3)
    for distribution in ("uniform", "signed_constant", "kaiming_normal"):
        kernel = after_events(3, weight_distribution=distribution)
        values = np.asarray(kernel.baked())
        rounded = np.where(values == 0, 0, values * 1.001).astype(np.float32)
        assert find_draws(rounded, kernel) is None
        assert distribution != "kaiming_normal" or find_draws(values, kernel) is None
    halves = after_events(3, weight_distribution="uniform", dtype="bfloat16")
    assert find_draws(np.asarray(halves.baked()).astype(np.float32), halves) is None
    other = after_events(3, weight_distribution="uniform")
    other.num_draws.assign(3)
    assert find_draws(np.asarray(other.baked()), other) is None
    assert find_draws(np.asarray(trained.baked()), trained) is not None


@pytest.mark.parametrize("method", ["magnitude_pruning", "random_pruning"])
def test_kernels_that_are_trained_are_no_draws(method):
    layer = iterand_tf.SubnetDense(30, sparsity=0.6, method=method, kernel_initializer="random_uniform")
    layer.build((None, 40))
    (kernel,) = layer.subnet_kernels
    assert find_draws(np.asarray(kernel.baked()), kernel) is None


def test_a_draw_is_that_of_the_layer():
    kernel = after_events(2, weight_distribution="uniform")
    for number in range(3):
        places = np.arange(kernel.num_weights)
        uniform = uniform_at(np.full_like(places, kernel.seed_of_draw(number)), places)
        np.testing.assert_array_equal(uniform * 2 - 1, np.ravel(kernel.draw(number)))
