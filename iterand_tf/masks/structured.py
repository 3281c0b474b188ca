"""Masks with a structure: N of every M entries, and a least number for each output.

All are exact, and ties are kept in the order of their index, as in `iterand_tf.masks`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from keras import ops

from iterand_tf.checks import ArgumentError
from iterand_tf.masks.selection import sort_keys

PER_KERNEL, GLOBAL = "per_kernel", "global"
_LARGEST = float.fromhex("0x1.fffffep+127")


def parse_nm(mask: str) -> tuple[int, int] | None:
    """(N, M) of the name of an N:M mask; None for the names of the other masks.

    Raises:
        ArgumentError: if it is neither the name of a mask nor of the form N:M with 0 < N < M.

    Example:

    >>> parse_nm("2:4"), parse_nm("per_kernel")
    ((2, 4), None)
    """
    if mask in (PER_KERNEL, GLOBAL):
        return None
    found = re.fullmatch(r"(\d+):(\d+)", str(mask))
    n, m = map(int, found.groups()) if found else (0, 0)
    if not 0 < n < m:
        raise ArgumentError("mask", f"{PER_KERNEL}, {GLOBAL} or N:M with 0 < N < M, such as 2:4", mask)
    return n, m


def nm_mask(scores: Any, n: int, m: int, axes: Sequence[int]) -> Any:
    """Keeps the `n` largest of every `m` neighbours among the inputs of each output.

    Args:
        scores: float32 tensor of a static shape.
        n: entries that are kept of each group, above 0 and below `m`.
        m: entries of a group; it divides the number of inputs.
        axes: of the scores that an output sums over. Flattened in row-major order they are the inputs.

    Raises:
        ValueError: if `m` does not divide the number of inputs.

    Reference:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, section 3, for 2:4.

    Example:

    >>> nm_mask([[1.0], [3.0], [2.0], [0.0]], 2, 4, axes=(0,)).numpy().ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    matrix = _Matrix(scores, axes)
    if matrix.num_inputs % m:
        raise ValueError(f"M must divide the number of inputs, {matrix.num_inputs}. Received: mask='{n}:{m}'")
    groups = ops.reshape(matrix.keys, (matrix.num_inputs // m, m, matrix.num_outputs))
    place = ops.reshape(ops.arange(m, dtype="int32"), (1, m, 1))
    rank = ops.zeros_like(groups)
    for other in range(m):
        rival = groups[:, other : other + 1]
        wins = ops.logical_or(rival > groups, ops.logical_and(rival == groups, other < place))
        rank = rank + ops.cast(wins, "int32")
    return matrix.restore(ops.reshape(rank < n, (matrix.num_inputs, matrix.num_outputs)))


def protect_largest(scores: Any, count: int, axes: Sequence[int]) -> Any:
    """Scores of which the `count` largest of each output are infinite and so are kept by every mask of the largest.

    Args:
        scores: float32 tensor of a static shape.
        count: how many inputs each output keeps at least.
        axes: of the scores that an output sums over.

    Example:

    >>> protect_largest([[1.0, 9.0], [2.0, 8.0]], 1, axes=(0,)).numpy().tolist()
    [[1.0, inf], [inf, 8.0]]
    """
    matrix = _Matrix(scores, axes)
    keys, place = matrix.keys, ops.reshape(ops.arange(matrix.num_inputs, dtype="int32"), (-1, 1))
    protected = ops.zeros(keys.shape, "bool")
    for _ in range(count):
        candidates = ops.where(protected, -(2**31), keys)
        largest = ops.logical_and(candidates == ops.max(candidates, axis=0, keepdims=True), ops.logical_not(protected))
        first = ops.min(ops.where(largest, place, matrix.num_inputs), axis=0, keepdims=True)
        protected = ops.logical_or(protected, place == first)
    finite = ops.where(ops.isnan(scores), _LARGEST, ops.minimum(scores, _LARGEST))
    return ops.where(matrix.restore(protected) > 0, float("inf"), finite)


class _Matrix:
    """Keys of scores that order as they do, as a matrix of inputs by outputs, and the way back to their shape."""

    def __init__(self, scores, axes):
        scores = ops.convert_to_tensor(scores, dtype="float32")
        self._order = [*axes, *(axis for axis in range(len(scores.shape)) if axis not in axes)]
        self._shape = [scores.shape[axis] for axis in self._order]
        self.num_inputs = math.prod(scores.shape[axis] for axis in axes)
        self.num_outputs = math.prod(scores.shape) // max(self.num_inputs, 1)
        matrix = ops.reshape(ops.transpose(scores, self._order), (self.num_inputs, self.num_outputs))
        self.keys = sort_keys(matrix)

    def restore(self, matrix):
        """A float32 tensor of the scores' shape from a matrix like `keys`."""
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        return ops.transpose(ops.cast(ops.reshape(matrix, self._shape), "float32"), inverse)
