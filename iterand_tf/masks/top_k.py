"""Exact top-k masks of score tensors, and their straight-through gradient.

A mask keeps `size - round(sparsity * size)` entries, never one more or fewer: the threshold is the exact
k-th largest score and entries that tie with it are kept in the order of their flat index.

Source: the subnetwork rule of edge-popup (Ramanujan et al., CVPR 2020, section 3), which IteRand (Chijiwa et al.,
NeurIPS 2021, section 3) keeps.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from iterand_tf import checks
from iterand_tf.masks.selection import select_largest


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
    return ops.reshape(select_largest(ops.reshape(scores, (size,)), kept), scores.shape)


def masks_of_largest(scores: Sequence[Any], kept: Any) -> list[Any]:
    """Masks of several tensors that keep the largest of all their scores together.

    Args:
        scores: float32 tensors of static shapes. Ties are kept in the order of the tensors, and in them of the index.
        kept: how many of all entries are kept, as for `mask_of_largest`.

    Example:

    >>> [mask.numpy().tolist() for mask in masks_of_largest([[1.0, 4.0], [3.0]], 2)]
    [[0.0, 1.0], [1.0]]
    """
    scores = [ops.convert_to_tensor(each, dtype="float32") for each in scores]
    # A search in each tensor by itself would save this copy, and compile longer with each of them.
    mask = mask_of_largest(ops.concatenate([ops.reshape(each, (-1,)) for each in scores]), kept)
    ends = itertools.accumulate(math.prod(each.shape) for each in scores)
    return [
        ops.reshape(mask[end - math.prod(each.shape) : end], each.shape) for each, end in zip(scores, ends, strict=True)
    ]


@ops.custom_gradient
def straight_through(scores: Any, mask: Any) -> Any:
    """The mask; its gradient goes to the scores unchanged.

    Args:
        scores: float32 tensor.
        mask: float32 tensor of the same shape, computed from them.

    Example:

    >>> straight_through(ops.ones(2), ops.zeros(2)).numpy().tolist()
    [0.0, 0.0]
    """

    def gradient(*args, upstream=None):
        upstream = upstream if upstream is not None else args[0]
        return upstream, ops.zeros_like(upstream)

    # A tensor of its own: an argument that is returned as it is would have the gradient of both.
    return ops.copy(mask), gradient
