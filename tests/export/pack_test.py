"""The coder: bit for bit, in both implementations, near the entropy."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export import entropy
from export.pack import decode, encode, round_values
from export.unpack import unpack

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
FEW = st.sampled_from([0.0, 0.5, -0.5, -0.0, float("nan"), float("inf")])
ANY = st.floats(width=32)


def assert_same_bits(first, second):
    assert first.shape == second.shape
    assert first.dtype == second.dtype
    assert first.tobytes() == second.tobytes()


@hypothesis.settings(deadline=None)
@hypothesis.given(kernel=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW, ANY)))
def test_decode_gives_the_kernel_bit_for_bit(kernel):
    packed = encode(kernel)
    assert_same_bits(decode(packed), kernel)
    assert packed.num_bytes <= kernel.nbytes


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(kernel=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW, ANY)))
def test_tensorflow_decodes_the_same_bits(kernel):
    packed = encode(kernel)
    assert_same_bits(unpack(packed).numpy(), kernel)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(kernel=hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW, st.floats(-60000, 60000, width=32))))
def test_smaller_types_give_the_rounded_kernel_bit_for_bit(dtype, kernel):
    packed, rounded = encode(kernel, dtype), round_values(kernel, dtype)
    assert_same_bits(decode(packed), rounded)
    assert_same_bits(unpack(packed).numpy(), rounded)
    np.testing.assert_allclose(rounded, kernel, rtol=2.0**-8, atol=1e-7)


@pytest.mark.parametrize(("distinct", "sparsity"), [(1, 0.5), (2, 0.5), (3, 0.6), (5, 0.2), (16, 0.3), (1000, 0.6)])
def test_large_kernels(distinct, sparsity):
    draw = np.random.default_rng(0)
    values = draw.normal(size=distinct).astype(np.float32)
    kernel = np.where(
        draw.uniform(size=(3, 3, 64, 129)) < sparsity, np.float32(0), draw.choice(values, (3, 3, 64, 129))
    )
    packed = encode(kernel)
    assert_same_bits(decode(packed), kernel)
    assert_same_bits(unpack(packed).numpy(), kernel)


@pytest.mark.parametrize(("sparsity", "kind", "coding"), [(0.6, "ternary", "symbols"), (0.6, "uniform", "mask")])
def test_close_to_the_entropy(sparsity, kind, coding):
    draw = np.random.default_rng(0)
    size = 1_000_000
    values = draw.choice(np.float32([-0.1, 0.1]), size) if kind == "ternary" else draw.uniform(-1, 1, size)
    kernel = np.where(draw.permutation(size) < sparsity * size, 0, values).astype(np.float32)
    packed = encode(kernel)
    assert packed.coding == coding
    assert 8 * packed.num_bytes <= 1.02 * entropy.kernel_entropy_bits(kernel)


@pytest.mark.parametrize(("sparsity", "most"), [(0.9, 1.03), (0.95, 1.17), (0.99, 1.4)])
def test_at_high_sparsity_the_entropy_is_not_reached(sparsity, most):
    draw = np.random.default_rng(0)
    size = 500_000
    zeros = draw.permutation(size) < sparsity * size
    kernel = np.where(zeros, 0, draw.choice(np.float32([-0.1, 0.1]), size)).astype(np.float32)
    assert 1 < 8 * encode(kernel).num_bytes / entropy.kernel_entropy_bits(kernel) <= most


def test_a_kernel_without_zeros_stays_raw():
    assert encode(np.random.default_rng(0).normal(size=1000).astype(np.float32)).coding == "raw"


def test_refuses_other_types():
    with pytest.raises(ValueError, match="float32"):
        encode(np.zeros(3))
