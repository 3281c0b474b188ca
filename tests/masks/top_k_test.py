"""Exactness of masks: hand-written tables, an oracle that sorts, scores that mislead the search, up to ten million."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_tables import TOP_K, sorting_oracle

from iterand_tf import masks
from iterand_tf.masks import selection


@pytest.fixture(params=["halves", "sample"], scope="module")
def search(request):
    """Runs a test with each of the two searches, whatever the number of scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_MOST_HALVED", {"halves": 2**30, "sample": 1}[request.param])
        selection._selection.cache_clear()
        yield request.param
    selection._selection.cache_clear()


both_searches = pytest.mark.usefixtures("search")


def plain_mask(scores, sparsity):
    """The mask with XLA switched off and every operation run by itself."""
    kept = masks.num_kept(scores.size, sparsity)
    flat = tf.constant(scores.ravel())
    return np.reshape(selection._select(flat, tf.constant(kept)), scores.shape)


@both_searches
@pytest.mark.parametrize(("scores", "sparsity", "expected"), TOP_K)
def test_hand_written_masks(scores, sparsity, expected):
    mask = masks.topk_mask(np.array(scores, np.float32), sparsity)
    assert mask.dtype == "float32"
    assert mask.numpy().tolist() == expected


@both_searches
@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(data=st.data(), sparsity=st.floats(0, 0.999))
def test_equals_the_sorting_oracle(data, sparsity):
    # Few distinct values, because they tie.
    size = data.draw(st.integers(1, 99))
    values = st.one_of(st.sampled_from([-1.0, -0.0, 0.0, 0.5]), st.floats(width=32, allow_nan=False))
    scores = data.draw(hnp.arrays(np.float32, (size,), elements=values))
    mask = masks.topk_mask(scores, sparsity).numpy()
    np.testing.assert_array_equal(mask, sorting_oracle(scores, sparsity))
    assert mask.sum() == size - round(sparsity * size)


@both_searches
@pytest.mark.parametrize("sparsity", [0.001, 0.3, 0.5, 0.6, 0.999])
@pytest.mark.parametrize(
    "values", ["normal", "uniform", "rounded", "heavy", "negative", "subnormal", "positive_subnormal", "two"]
)
def test_equal_with_and_without_xla(values, sparsity):
    draw = np.random.default_rng(1)
    scores = {
        "normal": lambda: draw.normal(size=3001),
        "uniform": lambda: draw.uniform(-1, 1, 3001),
        "rounded": lambda: draw.normal(size=3001).round(1),
        "heavy": lambda: draw.standard_cauchy(3001) ** 5,
        "negative": lambda: -draw.exponential(size=3001),
        "subnormal": lambda: draw.normal(size=3001) * 1e-40,
        "positive_subnormal": lambda: np.abs(draw.normal(size=3001)) * 1e-40,
        "two": lambda: draw.integers(0, 2, 3001),
    }[values]().astype(np.float32)
    expected = sorting_oracle(scores, sparsity)
    np.testing.assert_array_equal(masks.topk_mask(scores, sparsity), expected)
    np.testing.assert_array_equal(plain_mask(scores, sparsity), expected)


# Scores whose sample says nothing of them, or the wrong thing: of 20,000, every nineteenth is in it.
SIZE, STRIDE = 20_000, 19
DRAW = np.random.default_rng(2)


def keys_around_one():
    """Nearly all 1, and a few at distances that grow exponentially, as the bits of float32 count."""
    bits = np.full(SIZE, np.float32(1).view(np.int32), np.int64)
    distances = np.floor(1.3 ** np.arange(70)).astype(np.int64)
    places = DRAW.permutation(SIZE)[:140]
    bits[places] += np.concatenate([distances, -distances])
    return bits.astype(np.int32).view(np.float32)


MISLEADING = {
    "ascending": np.arange(SIZE),
    "descending": -np.arange(SIZE),
    "alternating": np.arange(SIZE) % 2,
    "all_equal": np.full(SIZE, 0.25),
    "all_but_one_equal": np.arange(SIZE) == 12_345,
    "zeros_of_both_signs": np.where(np.arange(SIZE) % 3, 0.0, -0.0),
    "sample_above_all": np.where(np.arange(SIZE) % STRIDE, DRAW.normal(size=SIZE), 1e30),
    "sample_below_all": np.where(np.arange(SIZE) % STRIDE, DRAW.normal(size=SIZE), -1e30),
    "sample_of_one_value": np.where(np.arange(SIZE) % STRIDE, DRAW.normal(size=SIZE), 0.5),
    "sample_of_both_ends": np.where(np.arange(SIZE) % STRIDE, DRAW.normal(size=SIZE), 1e9 * (-1.0) ** np.arange(SIZE)),
    "clusters_around_ties": np.where(np.arange(SIZE) % STRIDE, keys_around_one(), np.float32(3e38)),
    "grid": DRAW.normal(size=SIZE).round(1),
    "outliers": np.where(np.arange(SIZE) % 5000 == 17, 3e38, DRAW.normal(size=SIZE)),
    "all_magnitudes": DRAW.choice([-1, 1], SIZE) * 2.0 ** DRAW.uniform(-149, 127.9, SIZE),
    "infinities": DRAW.choice([-np.inf, np.inf, 0.0], SIZE),
    "nan_of_both_signs": DRAW.choice([np.nan, -np.nan, 1.0, np.inf], SIZE),
    "subnormal": DRAW.normal(size=SIZE) * 1e-42,
    "around_the_largest_subnormal": DRAW.normal(1.1754942e-38, 1e-43, SIZE),
    "largest": DRAW.choice([3.4028235e38, -3.4028235e38, 3.402823e38], SIZE),
}


@both_searches
@pytest.mark.parametrize("sparsity", [0.0001, 0.25, 0.5, 0.6, 0.9999])
@pytest.mark.parametrize("name", MISLEADING)
def test_scores_that_mislead_the_search(name, sparsity):
    scores = MISLEADING[name].astype(np.float32)
    np.testing.assert_array_equal(masks.topk_mask(scores, sparsity), sorting_oracle(scores, sparsity))


def test_the_sample_is_what_the_misleading_scores_expect():
    assert selection._stride(SIZE) == STRIDE


@pytest.mark.parametrize("name", ["normal", "uniform", *MISLEADING])
def test_the_search_by_a_sample_ends_soon(name, monkeypatch):
    monkeypatch.setattr(selection, "_MOST_HALVED", 1)
    draws = {"normal": DRAW.normal(size=SIZE), "uniform": DRAW.uniform(-1, 1, SIZE)}
    passes = []
    for kind in ("_count_above", "_tightened", "_last_tied"):
        run = getattr(selection, kind)
        monkeypatch.setattr(selection, kind, lambda *args, kind=kind, run=run: passes.append(kind) or run(*args))
    # Without XLA every pass is a call.
    plain_mask((draws | MISLEADING)[name].astype(np.float32), 0.6)
    assert passes.count("_count_above") <= (6 if name in draws else 20)
    assert len(passes) <= (6 if name in draws else 28)


@both_searches
@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    size=st.sampled_from([4095, 4096, 4097, 5121]),
    period=st.lists(st.floats(width=32), min_size=1, max_size=12),
    tail=st.lists(st.floats(width=32), max_size=3),
    order=st.sampled_from(["periodic", "sorted", "shuffled"]),
    sparsity=st.floats(0, 0.999),
)
def test_equals_the_sorting_oracle_on_patterns(size, period, tail, order, sparsity):
    scores = np.resize(np.array(period, np.float32), size)
    scores[size - len(tail) :] = tail
    if order == "sorted":
        scores.sort()
    if order == "shuffled":
        np.random.default_rng(0).shuffle(scores)
    np.testing.assert_array_equal(masks.topk_mask(scores, sparsity), sorting_oracle(scores, sparsity))


@both_searches
@pytest.mark.parametrize("sparsity", [0.0, 0.0001, 0.25, 0.5, 0.9999])
@pytest.mark.parametrize("name", MISLEADING)
def test_one_threshold_for_several_tensors(name, sparsity):
    scores = MISLEADING[name].astype(np.float32)
    parts = np.split(scores, [1, 1, 1025, 2500, 19_000])
    parts[-1] = parts[-1].reshape(10, 100)
    together = masks.masks_of_largest(parts, masks.num_kept(SIZE, sparsity))
    assert [mask.shape for mask in together] == [part.shape for part in parts]
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(mask) for mask in together]), sorting_oracle(scores, sparsity)
    )


@both_searches
def test_inside_an_outer_xla_computation():
    scores = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    compiled = tf.function(lambda s: masks.topk_mask(s, 0.3), jit_compile=True)
    np.testing.assert_array_equal(compiled(scores), sorting_oracle(scores, 0.3))


@pytest.mark.parametrize("values", ["normal", "all_equal"])
def test_ten_million_scores(values):
    size = 10_000_000
    scores = (
        np.random.default_rng(0).normal(size=size).astype(np.float32) if values == "normal" else np.ones(size, "f4")
    )
    mask = masks.topk_mask(scores, 0.7).numpy() == 1
    assert mask.sum() == size - round(0.7 * size)
    assert scores[mask].min() >= scores[~mask].max()
    if values == "all_equal":
        assert mask[: mask.sum()].all()


def test_straight_through_is_the_mask_forward_and_the_identity_backward():
    scores = tf.Variable([0.3, -0.2, 0.1, 0.7])
    upstream = tf.constant([1.0, -2.0, 3.0, -4.0])
    expected = masks.topk_mask(scores, 0.5)
    with tf.GradientTape() as tape:
        mask = masks.straight_through(scores, expected)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(tape.gradient(mask, scores, output_gradients=upstream), upstream)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), "0.5", None, True])
def test_refuses_a_sparsity_out_of_range(sparsity):
    with pytest.raises(ValueError, match=r"sparsity must be (at least 0 and below 1|a number).* Received"):
        masks.topk_mask([1.0, 2.0], sparsity)


def test_refuses_a_dynamic_shape():
    @tf.function(input_signature=[tf.TensorSpec([None])])
    def mask(scores):
        return masks.topk_mask(scores, 0.5)

    with pytest.raises(ValueError, match="static shape"):
        mask(tf.zeros(3))


def test_compiled_selections_do_not_pile_up():
    for size in range(2, 300):
        selection._selection(size)
    assert selection._selection.cache_info().currsize < 298


@both_searches
@pytest.mark.parametrize("name", ["infinities", "nan_of_both_signs", "all_equal", "all_magnitudes"])
def test_none_and_all_are_kept(name):
    scores = MISLEADING[name].astype(np.float32)
    assert not masks.mask_of_largest(scores, 0).numpy().any()
    assert masks.mask_of_largest(scores, SIZE).numpy().all()


@pytest.mark.parametrize("more", [0, 1])
def test_where_one_search_ends_and_the_other_begins(more, monkeypatch):
    monkeypatch.setattr(selection, "_MOST_HALVED", 2**12)
    selection._selection.cache_clear()
    passes = []
    count = selection._count_above
    monkeypatch.setattr(selection, "_count_above", lambda *args: passes.append(1) or count(*args))
    scores = DRAW.normal(size=2**12 + more).astype(np.float32)
    np.testing.assert_array_equal(masks.topk_mask(scores, 0.6), sorting_oracle(scores, 0.6))
    assert bool(passes) == bool(more)
    selection._selection.cache_clear()


@both_searches
def test_the_number_kept_may_change_without_a_new_trace():
    scores = np.random.default_rng(0).normal(size=65).astype(np.float32)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
    def mask(kept):
        traces.append(kept)
        return masks.mask_of_largest(scores, kept)

    for kept in (0, 1, 40, 64, 65):
        expected = np.zeros(65)
        expected[np.argsort(-scores)[:kept]] = 1
        np.testing.assert_array_equal(mask(kept), expected)
    assert len(traces) == 1
