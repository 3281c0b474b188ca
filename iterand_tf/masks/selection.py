"""Selection of the largest of many scores without sorting them, exact to the last tie.

Everything has a static shape and is made of comparisons and counts, so what is selected is the same with and without
XLA. Of many scores the threshold is found in about four passes over them; of few it takes more passes, by code that
compiles soon.

Source: selection by quantiles of a sample (Floyd and Rivest, CACM 1975).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

_INT32_MIN = np.int32(-(2**31))
_INFINITY = np.int32(0x7F800000)
_ROWS, _COLUMNS = 8, 128
_BLOCK = _ROWS * _COLUMNS
_SAMPLE, _LARGEST_STRIDE = 1024, 8192
# All smaller kernels share what is compiled for this many scores.
_SMALLEST = 4096
# Up to here a search by halves, which compiles sooner, takes about as long as the other.
_MOST_HALVED = 2**18


def select_largest(scores: Any, kept: Any) -> Any:
    """Float32 mask of the `kept` largest of flat scores, at least one; ties are kept in the order of their index."""
    size, kept = scores.shape[0], ops.cast(kept, "int32")
    if size < _SMALLEST:
        # What is appended ranks last: scores of -inf stand before it.
        scores = ops.pad(scores, [[0, _SMALLEST - size]], constant_values=-float("inf"))
    return _selection(max(size, _SMALLEST))(scores, kept)[:size]


# More sizes than a large network has; each holds a compiled function.
@functools.lru_cache(maxsize=256)
def _selection(size: int) -> Callable[[Any, Any], Any]:
    """`_select` for flat tensors of one size, compiled by XLA where the backend is TensorFlow or JAX."""
    # An object for each size: TensorFlow warns of one function that is traced for many.
    select = functools.partial(_select)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(select)
    if keras.backend.backend() != "tensorflow":
        return select
    import tensorflow as tf

    signature = [tf.TensorSpec((size,), tf.float32), tf.TensorSpec((), tf.int32)]
    return tf.function(select, input_signature=signature, jit_compile=True, autograph=False)


def _select(scores, kept):
    """Float32 mask of the `kept` largest of the flat `scores`, 0 <= kept <= size, size > 0."""
    size = scores.shape[0]
    if size <= _MOST_HALVED:
        return _select_by_halves(scores, kept)
    some = _select_by_sample(scores, ops.clip(kept, 1, size - 1))
    # All are larger than none of them, and none than all.
    return ops.where(kept >= size, ops.ones_like(some), ops.where(kept <= 0, ops.zeros_like(some), some))


def _select_by_halves(scores, kept):
    """Float32 mask of the `kept` largest of the flat `scores`, 0 <= kept <= size, by code that compiles soon.

    The search keeps a bracket (low, high] of order-preserving integer keys around the kept-th largest score: at least
    `kept` keys exceed `low`, fewer exceed `high`. Each pass over the scores halves it, until exactly `kept` keys exceed
    `low`, or until it holds one value. Then the keys are replaced by places, the first the largest, of which those
    above the bracket have the best and those below have the worst, and the same search divides the ties. Where none is
    kept, only `low` moves, until no key or no place exceeds it.
    """
    size = scores.shape[0]
    keys = _blocks(scores)
    places = size - 1 - ops.reshape(ops.arange(math.prod(keys.shape), dtype="int32"), keys.shape)
    worst, best = ops.full((), -size - 1, "int32"), ops.full((), size, "int32")

    def unresolved(low, high, above_low):
        return ops.logical_and(above_low > kept, low + 1 < high)

    def halved(keys, low, high, above_low):
        middle = ops.bitwise_and(low, high) + ops.right_shift(ops.bitwise_xor(low, high), 1)
        # The rows first, see `_count_above`; without the `and` XLA makes one sum of two, which is slower.
        above = ops.sum(ops.bitwise_and(ops.sum(ops.cast(keys > middle, "int32"), axis=1), 0xFF))
        enough = above >= kept
        return (
            ops.where(enough, middle, low),
            ops.where(enough, high, middle),
            ops.where(enough, above, above_low),
        )

    def search(step, keys, low, high, above_low):
        bracket = (low, high, above_low)
        low, high, above_low = ops.while_loop(unresolved, functools.partial(halved, keys), bracket)
        keys = ops.where(keys > high, best, ops.where(keys > low, places, worst))
        return step + 1, keys, worst, best, above_low

    # One loop for both searches: their code is compiled once.
    low, high = ops.full((), -_INFINITY - 1, "int32"), ops.full((), _INFINITY, "int32")
    start = (ops.zeros((), "int32"), keys, low, high, ops.full((), size, "int32"))
    _, keys, *_ = ops.while_loop(lambda step, *_: step < 2, search, start)
    return ops.cast(ops.reshape(keys, (-1,))[:size] > worst, "float32")


def _select_by_sample(scores, kept):
    """Float32 mask of the `kept` largest of the flat `scores`, 0 < kept < size, in few passes over them.

    The search keeps a bracket (low, high] of order-preserving integer keys around the kept-th largest score: at least
    `kept` keys exceed `low`, fewer exceed `high`. Each pass over the scores counts the keys above four thresholds and
    takes the narrowest bracket that the counts prove. The first thresholds are quantiles of a sorted sample (Floyd and
    Rivest 1975), the next interpolate between the ends of the bracket, and later ones divide it evenly. The search ends
    when exactly `kept` keys exceed `low`, or when the bracket holds one value, whose ties are divided by their index.
    That it holds one value is hard to see from counts, so some passes look for the smallest and the largest key inside
    instead. There are about four passes, and at most 28 where the sample misleads.
    """
    keys = _blocks(scores)

    def counted(thresholds, edges, totals):
        counts = ops.sum(_count_above(keys, thresholds), axis=1)
        enough = ops.sum(ops.cast(counts >= kept, "int32"))
        ends = ops.stack([enough, enough + 1])
        edges = ops.take(ops.concatenate([edges[:1], thresholds, edges[1:]]), ends)
        return edges, ops.take(ops.concatenate([totals[:1], counts, totals[1:]]), ends)

    def narrow(step, thresholds, edges, totals):
        edges, totals = ops.cond(
            ops.logical_and(step > 1, step % 3 == 1),
            lambda: (_tightened(keys, edges), totals),
            lambda: counted(thresholds, edges, totals),
        )
        thresholds = ops.where(step < 5, _interpolated(edges, totals, kept), _even(edges))
        return step + 1, ops.clip(thresholds, edges[0] + 1, edges[1] - 1), edges, totals

    def unresolved(step, thresholds, edges, totals):
        return ops.logical_and(totals[0] > kept, edges[0] + 1 < edges[1])

    # Both ends of the bracket, and how many keys exceed them.
    size = scores.shape[0]
    edges = ops.convert_to_tensor(np.array([-_INFINITY - 1, _INFINITY], np.int32))
    totals = ops.convert_to_tensor(np.array([size, 0], np.int32))
    start = (ops.zeros((), "int32"), _sampled(scores, kept), edges, totals)
    _, _, edges, totals = ops.while_loop(unresolved, narrow, start)
    last = ops.cond(
        totals[0] > kept, lambda: _last_tied(keys, edges, kept - totals[1]), lambda: ops.full((), size, "int32")
    )
    keys, index = sort_keys(scores), ops.arange(size, dtype="int32")
    selected = ops.logical_or(keys > edges[1], ops.logical_and(keys > edges[0], index < last))
    return ops.cast(selected, "float32")


def _sampled(scores, kept):
    """Four thresholds from a sample: the kept-th largest lies probably between the middle ones, else the outer ones."""
    size = scores.shape[0]
    sample = ops.sort(sort_keys(scores[:: _stride(size)]))
    below = 1 - ops.cast(kept, "float32") / size
    deviation = ops.sqrt(below * (1 - below) * sample.shape[0])
    places = ops.cast(below * sample.shape[0] + np.array([-4, -0.8, 0.8, 4], np.float32) * deviation, "int32")
    # The lower two just below their values: a bracket of the middle ones may then hold one value, which ties.
    thresholds = ops.take(sample, ops.clip(places, 0, sample.shape[0] - 1)) - np.array([1, 1, 0, 0], np.int32)
    return ops.clip(thresholds, -_INFINITY, _INFINITY - 1)


def _stride(size):
    """How far the scores of the sample are apart."""
    # Of very many scores a larger sample saves a pass. An odd stride has few factors in common with a kernel's shape.
    return min(max(size // _SAMPLE, 16), _LARGEST_STRIDE) | 1


def _interpolated(edges, totals, kept):
    """Four thresholds about where the kept-th largest would be, were the candidates evenly distributed."""
    candidates = ops.cast(totals[0] - totals[1], "float32")
    fraction = ops.cast(totals[0] - kept, "float32") / candidates
    deviation = ops.sqrt(fraction * (1 - fraction) / candidates) + 0.5 / candidates
    low, high = _value(edges[0]), _value(edges[1])
    return sort_keys(low + (high - low) * (fraction + np.array([-1.4, -0.45, 0.45, 1.4], np.float32) * deviation))


def _even(edges):
    """Four thresholds that divide the keys between the edges evenly."""
    low_half, high_half = ops.right_shift(edges[0], 1), ops.right_shift(edges[1], 1)
    tenth = (high_half - low_half) // 5
    return low_half + high_half + ops.maximum(tenth, 1) * np.array([-3, -1, 1, 3], np.int32)


def _count_above(keys, thresholds):
    """How many keys of each block exceed each of four ascending thresholds, in one pass over memory: (4, blocks).

    Sums over a few rows become vector instructions, those over columns do not. So the rows are summed first, with a
    byte of an integer for each threshold, and then the columns, with two bytes for each.
    """
    counts = sum(ops.where(keys > thresholds[i], np.int32(1 << 8 * i), np.int32(0)) for i in range(4))
    counts = ops.sum(counts, axis=1)
    pairs = [ops.sum(ops.bitwise_and(each, 0xFF00FF), axis=1) for each in (counts, ops.right_shift(counts, 8))]
    return ops.concatenate([ops.bitwise_and(ops.stack(pairs), 0xFFFF), ops.right_shift(ops.stack(pairs), 16)])


def _tightened(keys, edges):
    """The edges of the narrowest bracket that holds the same keys."""
    above = ops.unstack(ops.where(keys > edges[0], keys, _INFINITY), axis=1)
    below = ops.unstack(ops.where(keys <= edges[1], keys, -_INFINITY - 1), axis=1)
    # Row by row for the speed: XLA makes one slow reduction of two.
    smallest, largest = functools.reduce(ops.minimum, above), functools.reduce(ops.maximum, below)
    return ops.stack([ops.min(smallest) - 1, ops.max(largest)])


def _last_tied(keys, edges, number):
    """The index behind the first `number` keys inside the bracket, number > 0."""

    def inside(keys):
        return ops.cast(ops.logical_and(keys > edges[0], keys <= edges[1]), "int32")

    # Without the `and` XLA makes one sum of two, which is slower, see `_count_above`.
    block, before = _reached(ops.sum(ops.bitwise_and(ops.sum(inside(keys), axis=1), 0xFF), axis=1), number)
    place, _ = _reached(ops.reshape(inside(ops.take(keys, block, axis=0)), (_BLOCK,)), number - before)
    return block * _BLOCK + place + 1


def _reached(counts, number):
    """The first index with which the counts up to it add up to `number`, and the sum of those before it."""
    sums = ops.cumsum(counts)
    index = ops.sum(ops.cast(sums < number, "int32"))
    return index, ops.take(sums - counts, index)


def _blocks(scores):
    """The keys of flat scores as (blocks, rows, columns); those behind them are below all."""
    padded = ops.pad(sort_keys(scores), [[0, -scores.shape[0] % _BLOCK]], constant_values=-_INFINITY - 1)
    return ops.reshape(padded, (-1, _ROWS, _COLUMNS))


def sort_keys(scores: Any) -> Any:
    """Int32 tensor that orders as float32 scores do: -0.0 and 0.0 share the key 0, NaN and inf the largest."""
    bits = ops.view(scores, dtype="int32")
    keys = ops.where(bits < 0, _INT32_MIN - bits, bits)
    return ops.where(ops.abs(keys) > _INFINITY, _INFINITY, keys)


def _value(keys):
    """The float32 scores of keys: the inverse of `sort_keys`."""
    return ops.view(ops.where(keys < 0, _INT32_MIN - keys, keys), dtype="float32")
