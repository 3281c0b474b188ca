"""The theory's numbers: the bound holds where the lemma says so, and the proof's subnetwork is one and comes near."""

import numpy as np
import pytest

from tools import theory


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("weights", "draws"), [(1, 1), (3, 1), (1, 3), (5, 4), (10, 6)])
@pytest.mark.parametrize("target", [-1.0, -0.3, 0.0, 0.96, 1.0])
def test_the_bound_holds_for_each_target(weights, draws, target, generator):
    epsilon, trials = 0.1, 20_000
    frequency = theory.miss_frequency(weights, draws, epsilon, target, trials, generator)
    low, high = max(-1, target - epsilon), min(1, target + epsilon)
    exact = (1 - (high - low) / 2) ** (weights * draws)
    assert frequency == pytest.approx(exact, abs=4 * (0.25 / trials) ** 0.5)
    assert exact <= theory.miss_bound(weights, draws, epsilon)


def test_the_bound_is_of_one_target_and_not_of_all_at_once(generator):
    frequency = theory.miss_frequency(20, 2, 0.1, None, 2_000, generator)
    assert frequency > 3 * theory.miss_bound(20, 2, 0.1)


def test_weights_and_draws_count_alike(generator):
    many_weights, many_draws = (
        theory.miss_frequency(*counts, 0.1, 1.0, 20_000, generator) for counts in ((12, 1), (1, 12))
    )
    assert many_weights == pytest.approx(many_draws, abs=0.02)


def test_the_subnetwork_is_a_mask_on_a_random_network_twice_as_deep(generator):
    target = theory.random_target((3, 4, 2), generator)
    found = theory.choose_subnetwork(target, block=5, draws=2, generator=generator)
    assert [weights.shape for weights in found.weights] == [(3 * 2 * 5, 3), (4, 3 * 2 * 5), (4 * 5, 4), (2, 4 * 5)]
    for weights, mask in zip(found.weights, found.masks, strict=True):
        assert weights.shape == mask.shape
        assert np.abs(weights).max() <= 1
        assert set(np.unique(mask)) <= {0, 1}
    # A hidden neuron has one input, and an output one neuron of each block.
    assert found.masks[0].sum(axis=1).max() == 1
    assert (found.masks[1].sum(axis=1) == 3 * 2).all()
    assert (found.masks[3].sum(axis=1) == 4).all()


def test_one_weight_by_hand(generator):
    # A target of one weight: the subnetwork is v relu(u x) + v' relu(u' x), its error that of the two products.
    found = theory.choose_subnetwork([np.array([[0.5]])], block=200, draws=4, generator=generator)
    outputs = found(np.array([[1.0], [-1.0]]))[:, 0]
    np.testing.assert_allclose(outputs, [0.5, -0.5], atol=0.01)


def test_what_suffices_by_the_proof_suffices(generator):
    widths, epsilon, draws = (2, 2, 1), 0.5, 16
    target = theory.random_target(widths, generator)
    block = theory.block_of_the_proof(widths, epsilon, draws)
    for _ in range(10):
        found = theory.choose_subnetwork(target, block, draws, generator)
        assert theory.largest_error(target, found, generator) <= epsilon


def test_more_draws_need_less_width(generator):
    target = theory.random_target((3, 3, 2), generator)
    needed = [theory.block_needed(target, 0.2, draws, generator, tries=10) for draws in (1, 4, 16)]
    assert needed[0] > 3 * needed[1] >= 3 * needed[2]
    for draws, block in zip((1, 4, 16), needed, strict=True):
        assert block <= theory.block_of_the_proof((3, 3, 2), 0.2, draws)
