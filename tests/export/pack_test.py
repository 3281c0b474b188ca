"""The coder: bit for bit, near the entropy."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unpacking import unpacked

from export import entropy
from export.pack import Drawn, encode, encode_drawn, round_values
from export.philox import uniform_at

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
FEW = st.sampled_from([0.0, 0.5, -0.5, -0.0, float("nan"), float("inf")])
ANY = st.floats(width=32)


def assert_same_bits(first, second):
    assert first.shape == second.shape
    assert first.dtype == second.dtype
    assert first.tobytes() == second.tobytes()


@hypothesis.settings(deadline=None)
@hypothesis.given(kernel=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW, ANY)))
def test_values_give_the_kernel_bit_for_bit(kernel):
    packed = encode(kernel)
    assert_same_bits(unpacked(packed, kernel), kernel)
    assert packed.num_bytes <= kernel.nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(kernel=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW, st.floats(-60000, 60000, width=32))))
def test_smaller_types_give_the_rounded_kernel_bit_for_bit(dtype, kernel):
    packed, rounded = encode(kernel, dtype), round_values(kernel, dtype)
    assert_same_bits(unpacked(packed, rounded), rounded)
    np.testing.assert_allclose(rounded, kernel, rtol=2.0**-8, atol=1e-7)


def drawn_kernel(shape, sparsity, probabilities, signs=False, seed=0):
    """A kernel of entries of as many draws, or of signs of which so many are turned, and where they come from."""
    draw = np.random.default_rng(seed)
    places = np.flatnonzero(draw.uniform(size=shape).ravel() >= sparsity)
    index = draw.choice(len(probabilities), len(places), p=probabilities)
    seeds = draw.integers(0, 2**31, 1 if signs else len(probabilities)).astype(np.int32)
    uniform = uniform_at(seeds, (0 * index if signs else index).astype(np.int32), places).numpy()
    kernel = np.zeros(shape, np.float32)
    values = np.where((uniform < 0.5) != index, np.float32(0.1), np.float32(-0.1)) if signs else uniform * 2 - 1
    kernel.ravel()[places] = values
    # The most frequent draw must come first.
    return kernel, Drawn(tuple(seeds.tolist()), index, 0.1 if signs else 1.0, signs)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    shape=SHAPES,
    sparsity=st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    draws=st.integers(1, 300),
    signs=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_draws_give_the_kernel_bit_for_bit(shape, sparsity, draws, signs, seed):
    probabilities = np.full(2 if signs else draws, 1 / (2 if signs else draws))
    kernel, drawn = drawn_kernel(shape, sparsity, probabilities, signs, seed)
    assert_same_bits(unpacked(encode_drawn(kernel, drawn), kernel), kernel)


def with_values(distinct, sparsity):
    def make():
        draw = np.random.default_rng(0)
        values = np.array([-0.1, 0.1]) if distinct == 2 else draw.uniform(0.1, 1, distinct)
        kept = draw.choice(values, SIZE)
        kernel = np.where(draw.permutation(SIZE) < sparsity * SIZE, 0, kept).astype(np.float32)
        return kernel, encode(kernel)

    return make


def with_draws(count, first, sparsity, **options):
    """Of `count` draws, the first has a part `first` of the kept entries, and each later one a little less."""
    later = np.linspace(2, 1, count - 1)
    probabilities = [1.0] if count == 1 else [first, *((1 - first) * later / later.sum())]

    def make():
        kernel, drawn = drawn_kernel((SIZE,), sparsity, probabilities, **options)
        return kernel, encode_drawn(kernel, drawn)

    return make


SIZE = 600_000
# A row has the kernel, its coding, how its mask is coded, and at most how many times the entropy it takes.
CODINGS = {
    "no zeros": (with_values(100_000, 0.0), "raw", "float32", 1.0),
    "one value": (with_values(1, 0.5), "symbols", "plain", 1.002),
    "ternary, 0.2": (with_values(2, 0.2), "symbols", "bits", 1.01),
    "ternary, 0.5": (with_values(2, 0.5), "symbols", "plain", 1.002),
    "ternary, 0.6": (with_values(2, 0.6), "symbols", "bits", 1.006),
    "ternary, 0.9": (with_values(2, 0.9), "symbols", "gaps", 1.01),
    "ternary, 0.95": (with_values(2, 0.95), "symbols", "gaps", 1.01),
    "ternary, 0.99": (with_values(2, 0.99), "symbols", "gaps", 1.02),
    "five values": (with_values(5, 0.6), "symbols", "bits", 1.01),
    "sixteen values": (with_values(16, 0.3), "symbols", "bits", 1.01),
    "many values, 0.6": (with_values(100_000, 0.6), "mask", "bits", 1.001),
    "many values, 0.95": (with_values(100_000, 0.95), "mask", "gaps", 1.005),
    "many values, 0.99": (with_values(100_000, 0.99), "mask", "gaps", 1.005),
    "one draw, 0.5": (with_draws(1, 1, 0.5), "seeded", "plain", 1.001),
    "one draw, 0.6": (with_draws(1, 1, 0.6), "seeded", "bits", 1.01),
    "one draw, 0.95": (with_draws(1, 1, 0.95), "seeded", "gaps", 1.02),
    "24 draws": (with_draws(24, 0.86, 0.5), "seeded", "plain", 1.01),
    "117 draws": (with_draws(117, 0.4, 0.6), "seeded", "bits", 1.02),
    "1000 draws": (with_draws(1000, 0.3, 0.7), "seeded", "bits", 1.05),
    "signs of one draw": (with_draws(2, 1.0, 0.6, signs=True), "seeded_signs", "bits", 1.01),
    "signs, some turned": (with_draws(2, 0.93, 0.5, signs=True), "seeded_signs", "plain", 1.01),
}


@pytest.mark.parametrize("name", CODINGS)
def test_each_coding_is_chosen_exact_and_close_to_the_entropy(name):
    make, coding, mask, most = CODINGS[name]
    kernel, packed = make()
    assert (packed.coding, packed.kinds[0]) == (coding, mask)
    assert 8 * packed.num_bytes <= most * packed.entropy_bits
    assert_same_bits(unpacked(packed, kernel), kernel)


@pytest.mark.parametrize("name", [name for name, row in CODINGS.items() if not row[1].startswith("seeded")])
def test_what_is_stored_of_values_has_their_entropy(name):
    kernel, packed = CODINGS[name][0]()
    assert packed.entropy_bits == pytest.approx(entropy.kernel_entropy_bits(kernel))


def test_refuses_other_types():
    with pytest.raises(ValueError, match="float32"):
        encode(np.zeros(3))
