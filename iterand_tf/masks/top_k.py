"""Exact top-k masks of score tensors, and their straight-through gradient.

A mask keeps `size - round(sparsity * size)` entries, never one more or fewer: the threshold is the exact
k-th largest score and entries that tie with it are kept in the order of their flat index. Everything has a
static shape and is made of comparisons and counts, so the mask is the same bits with and without XLA.

Source: the subnetwork rule of edge-popup (Ramanujan et al., CVPR 2020, section 3), which IteRand
(Chijiwa et al., NeurIPS 2021, section 3) keeps.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from iterand_tf import checks

_INT32_MIN = np.int32(-(2**31))
_LARGEST_SUBNORMAL = np.int32(0x007FFFFF)


def num_kept(size: int, sparsity: float) -> int:
    """Number of ones in a mask of `size` entries: `size - round(sparsity * size)`.

    Example:

    >>> num_kept(10, 0.6)
    4
    """
    return size - round(checks.number("sparsity", sparsity, minimum=0, below=1) * size)


def topk_mask(scores: Any, sparsity: float) -> Any:
    """Returns a float32 mask of 0 and 1 that keeps the largest scores.

    Args:
        scores: float tensor of any static shape, any sign. Compared as float32, subnormal numbers included; -0.0
            equals 0.0 and NaN ranks with +inf.
        sparsity: fraction removed, in [0, 1).

    Returns:
        A float32 tensor of the shape of `scores` with exactly `num_kept(size, sparsity)` ones. Ties at the
        threshold are kept in the order of their flat (row-major) index.

    Raises:
        ValueError: if `sparsity` is not in [0, 1) or the shape is not static.

    Example:

    >>> from iterand_tf.masks import topk_mask
    >>> topk_mask([3.0, -1.0, 2.0, 2.0], sparsity=0.5).numpy().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    scores = ops.cast(ops.convert_to_tensor(scores), "float32")
    if None in scores.shape:
        raise ValueError(f"scores must have a static shape. Received: shape={tuple(scores.shape)}")
    return mask_of_largest(scores, num_kept(math.prod(scores.shape), sparsity))


def mask_of_largest(scores: Any, kept: Any) -> Any:
    """Returns a float32 mask of 0 and 1 that keeps a given number of the largest scores.

    Args:
        scores: float32 tensor of any static shape; compared as by `topk_mask`.
        kept: how many, a whole number from 0 to the number of scores. As a tensor it may change between calls of a
            compiled function.

    Example:

    >>> mask_of_largest([3.0, -1.0, 2.0, 2.0], 3).numpy().tolist()
    [1.0, 0.0, 1.0, 1.0]
    """
    scores = ops.convert_to_tensor(scores, dtype="float32")
    size = math.prod(scores.shape)
    if not size:
        return ops.zeros_like(scores)
    return ops.reshape(_selection(size)(ops.reshape(scores, (size,)), ops.cast(kept, "int32")), scores.shape)


def straight_through_mask(scores: Any, sparsity: float) -> Any:
    """`topk_mask(scores, sparsity)` in the forward pass, the identity in the backward pass.

    The forward value is the mask bit for bit; the gradient with respect to `scores` is the gradient with respect
    to the mask, unchanged. Arguments, result and errors are those of `topk_mask`.

    Example:

    >>> straight_through_mask([0.5, -0.5], sparsity=0.5).numpy().tolist()
    [1.0, 0.0]
    """
    scores = ops.cast(ops.convert_to_tensor(scores), "float32")
    return straight_through(scores, topk_mask(ops.stop_gradient(scores), sparsity))


@ops.custom_gradient
def straight_through(scores: Any, mask: Any) -> Any:
    """The mask; its gradient goes to the scores unchanged.

    Args:
        scores: float32 tensor.
        mask: float32 tensor of the same shape, computed from them.

    Example:

    >>> straight_through(keras.ops.ones(2), keras.ops.zeros(2)).numpy().tolist()
    [0.0, 0.0]
    """

    def gradient(*args, upstream=None):
        upstream = upstream if upstream is not None else args[0]
        return upstream, ops.zeros_like(upstream)

    # A tensor of its own: an argument that is returned as it is would have the gradient of both.
    return ops.copy(mask), gradient


# More sizes than a large network has; each holds a compiled function.
@functools.lru_cache(maxsize=256)
def _selection(size: int) -> Callable[[Any, Any], Any]:
    """`_select` for flat tensors of one size, compiled by XLA where the backend is TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return _select
    import tensorflow as tf

    signature = [tf.TensorSpec((size,), tf.float32), tf.TensorSpec((), tf.int32)]
    # An object for each size: TensorFlow warns of one function that is traced for many.
    select = functools.partial(_select)
    return tf.function(select, input_signature=signature, jit_compile=True, autograph=False)


def _select(scores, kept):
    """Float32 mask of the `kept` largest of the flat `scores`, 0 <= kept <= size."""
    size = scores.shape[0]
    if size == 1:
        return ops.cast(ops.expand_dims(kept, 0) > 0, "float32")
    some = _select_largest(scores, ops.clip(kept, 1, size - 1))
    # All are larger than none of them, and none than all.
    return ops.where(kept >= size, ops.ones_like(some), ops.where(kept <= 0, ops.zeros_like(some), some))


def _select_largest(scores, kept):
    """Float32 mask of the `kept` largest of the flat `scores`, 0 < kept < size, without sorting.

    The search keeps a bracket (low, high] of order-preserving integer keys around the kept-th largest score:
    at least `kept` keys exceed `low`, fewer exceed `high`. It ends when exactly `kept` keys exceed `low`, which
    takes about ten counting passes, or when the bracket holds one value, whose ties a second search over the flat
    index divides. Two of three probes interpolate, every third halves the bracket, so no input needs
    more than about 100 passes.
    """
    scores = _without_nan(scores)
    keys = _key(scores)
    # The maximum of floats may flush subnormal numbers to zero; none of their keys exceeds _LARGEST_SUBNORMAL.
    high = ops.maximum(_key(ops.max(ops.abs(scores))), _LARGEST_SUBNORMAL)
    low = -high - 1

    def probe(step, low, high, above_low, above_high):
        fraction = ops.cast(above_low - kept, "float32") / ops.cast(above_low - above_high, "float32")
        low_value, high_value = _value(low), _value(high)
        interpolated = _key(low_value + (high_value - low_value) * fraction)
        halved = ops.right_shift(low, 1) + ops.right_shift(high, 1) + ops.bitwise_and(ops.bitwise_and(low, high), 1)
        threshold = ops.where(step % 3 == 2, halved, interpolated)
        threshold = ops.clip(threshold, low + 1, high - 1)
        above = _count(keys > threshold)
        enough = above >= kept
        return (
            step + 1,
            ops.where(enough, threshold, low),
            ops.where(enough, high, threshold),
            ops.where(enough, above, above_low),
            ops.where(enough, above_high, above),
        )

    def unresolved(step, low, high, above_low, above_high):
        return ops.logical_and(above_low > kept, low + 1 < high)

    size = ops.convert_to_tensor(scores.shape[0], dtype="int32")
    zero = ops.zeros_like(size)
    _, low, high, above_low, above_high = ops.while_loop(unresolved, probe, (zero, low, high, size, zero))

    index = ops.arange(scores.shape[0], dtype="int32")
    candidates = ops.logical_and(keys > low, keys <= high)
    wanted = kept - above_high

    def halve(start, stop):
        middle = (start + stop) // 2
        few = _count(ops.logical_and(candidates, index < middle)) < wanted
        return ops.where(few, middle, start), ops.where(few, stop, middle)

    def tied(start, stop):
        return ops.logical_and(above_low > kept, start + 1 < stop)

    _, stop = ops.while_loop(tied, halve, (zero, size))
    selected = ops.logical_or(keys > high, ops.logical_and(candidates, index < stop))
    return ops.cast(selected, "float32")


def sort_keys(scores: Any) -> Any:
    """Int32 tensor that orders as float32 scores do: -0.0 equals 0.0, and NaN ranks with +inf.

    Example:

    >>> keys = sort_keys([1.0, -0.0, 0.0, float("nan"), float("inf")]).numpy()
    >>> bool(keys[0] > keys[1] == keys[2]), bool(keys[3] == keys[4])
    (True, True)
    """
    return _key(_without_nan(ops.convert_to_tensor(scores, dtype="float32")))


def _without_nan(scores):
    return ops.where(ops.isnan(scores), np.float32(np.inf), scores)


def _key(values):
    """Order-preserving int32 key of float32 values; -0.0 and 0.0 share the key 0."""
    bits = ops.view(values, dtype="int32")
    return ops.where(bits < 0, _INT32_MIN - bits, bits)


def _value(keys):
    """The float32 value of a key: the inverse of `_key`."""
    return ops.view(ops.where(keys < 0, _INT32_MIN - keys, keys), dtype="float32")


def _count(condition):
    return ops.sum(ops.cast(condition, "int32"))
