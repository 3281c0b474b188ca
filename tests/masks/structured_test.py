"""Structured masks: hand-written tables, an oracle that sorts, exact counts, with and without XLA."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_tables import N_OF_M

from iterand_tf import masks

# A row has scores, how many are protected of each output, the axes of the inputs and which are.
PROTECTED_TABLE = [
    ([[1.0, 9.0], [2.0, 8.0]], 1, (0,), [[0, 1], [1, 0]]),
    ([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]], 2, (0,), [[0, 1], [1, 1], [1, 0]]),
    ([[5.0], [5.0], [5.0]], 2, (0,), [[1], [1], [0]]),
    ([[-np.inf], [-np.inf]], 1, (0,), [[1], [0]]),
    ([[np.inf], [1.0]], 1, (0,), [[1], [0]]),
    ([[[1.0, 4.0]], [[3.0, 2.0]]], 1, (0, 2), [[[0, 1]], [[0, 0]]]),
]
# Few distinct values, because they tie.
SCORES = hnp.arrays(np.float32, (4, 3, 2), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, np.inf, 1e-45]))
compiled = {False: lambda function: function, True: lambda function: tf.function(function, jit_compile=True)}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("scores", "n", "m", "axes", "expected"), N_OF_M)
def test_n_of_every_m(scores, n, m, axes, expected, jit_compile):
    mask = compiled[jit_compile](lambda s: masks.nm_mask(s, n, m, axes))(tf.constant(scores))
    assert mask.dtype == "float32"
    assert mask.numpy().tolist() == expected


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("scores", "count", "axes", "expected"), PROTECTED_TABLE)
def test_the_largest_of_each_output_are_protected(scores, count, axes, expected, jit_compile):
    scores = np.array(scores, np.float32)
    protected = compiled[jit_compile](lambda s: masks.protect_largest(s, count, axes))(tf.constant(scores)).numpy()
    assert np.isinf(protected).astype(int).tolist() == np.where(scores == -np.inf, 1, expected).tolist()
    assert (protected > 3e38).astype(int)[np.array(expected) == 1].all()
    others = (np.array(expected) == 0) & np.isfinite(scores)
    np.testing.assert_array_equal(protected[others], scores[others])


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(scores=SCORES, n=st.integers(1, 3), kept=st.integers(6, 24), count=st.integers(0, 3))
def test_counts_are_exact(scores, n, kept, count):
    nm = masks.nm_mask(scores, n, 4, (0, 1)).numpy()
    assert (nm.reshape(3, 4, 2).sum(axis=1) == n).all()
    kept = max(kept, 2 * count)
    mask = masks.mask_of_largest(masks.protect_largest(scores, count, (0, 1)), kept).numpy()
    assert mask.sum() == kept
    assert (mask.sum(axis=(0, 1)) >= count).all()


def test_names():
    assert masks.parse_nm("2:4") == (2, 4)
    for name in ("4:4", "0:2", "5:4", "2/4", "top", "", None, "-1:2"):
        with pytest.raises(ValueError, match="mask must be per_kernel, global or N:M"):
            masks.parse_nm(name)
    with pytest.raises(ValueError, match="M must divide the number of inputs, 3"):
        masks.nm_mask(np.zeros((3, 2), np.float32), 1, 2, (0,))
