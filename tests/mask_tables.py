"""Hand-written masks and an oracle, for the tests of every backend."""

import numpy as np

# A row has scores, the sparsity and the mask.
TOP_K = [
    ([1.0], 0.0, [1]),
    ([1.0], 0.999, [0]),
    ([1.0, 2.0], 0.5, [0, 1]),
    ([2.0, 1.0], 0.5, [1, 0]),
    ([-1.0, -2.0, -3.0, -4.0], 0.5, [1, 1, 0, 0]),
    ([0.1, 0.2, 0.3, 0.4], 0.25, [0, 1, 1, 1]),
    ([5.0, 5.0, 5.0, 5.0], 0.5, [1, 1, 0, 0]),
    ([1.0, 5.0, 5.0, 5.0, 9.0], 0.4, [0, 1, 1, 0, 1]),
    ([0.0, -0.0, 0.0, -0.0], 0.5, [1, 1, 0, 0]),
    ([-0.0, 1e-45, -1e-45], 0.33, [1, 1, 0]),
    ([np.inf, -np.inf, 0.0], 0.33, [1, 0, 1]),
    ([np.inf, np.inf, 1.0], 0.67, [1, 0, 0]),
    ([3.4e38, -3.4e38, 1.0, -1.0], 0.5, [1, 0, 1, 0]),
    ([np.nan, 0.0, 1.0], 0.67, [1, 0, 0]),
    ([[1.0, 4.0], [3.0, 2.0]], 0.5, [[0, 1], [1, 0]]),
    ([1e-45, 3e-45, 2e-45, 4e-45], 0.5, [0, 1, 0, 1]),
    ([-1e-45, -3e-45, -2e-40, 0.0], 0.5, [1, 0, 0, 1]),
    ([], 0.5, []),
]


def sorting_oracle(scores, sparsity):
    flat = np.where(np.isnan(scores), np.float32(np.inf), scores).ravel() + np.float32(0)
    order = np.lexsort((np.arange(flat.size), -flat))
    mask = np.zeros(flat.size, np.float32)
    mask[order[: flat.size - round(sparsity * flat.size)]] = 1
    return mask.reshape(scores.shape)


def pattern_oracle(scores, kept, axes, n_of_m=None, min_per_channel=0):
    """The mask of the largest scores that fit a pattern, by sorting.

    Args:
        scores: float32 array.
        kept: how many are kept.
        axes: of the inputs of an output.
        n_of_m: at most N of every M neighbouring inputs are kept.
        min_per_channel: at least so many inputs of each output are kept.
    """
    others = [axis for axis in range(scores.ndim) if axis not in axes]
    matrix = np.transpose(scores, (*axes, *others)).reshape(-1, np.prod([scores.shape[a] for a in others], dtype=int))
    # Of equal scores the first in the order of the kernel's entries is kept.
    places = np.transpose(np.arange(scores.size).reshape(scores.shape), (*axes, *others)).reshape(matrix.shape)
    may, must = np.ones(matrix.shape, bool), np.zeros(matrix.shape, bool)
    for column in range(matrix.shape[1]):
        if n_of_m:
            for group in np.arange(len(matrix)).reshape(-1, n_of_m[1]):
                may[sorted(group, key=lambda row: -matrix[row, column])[n_of_m[0] :], column] = False
        must[sorted(range(len(matrix)), key=lambda row: -matrix[row, column])[:min_per_channel], column] = True
    order = np.lexsort((places.ravel(), -matrix.ravel(), ~must.ravel(), ~may.ravel()))
    mask = np.zeros(scores.size, np.float32)
    mask[places.ravel()[order[:kept]]] = 1
    return mask.reshape(scores.shape)


# A row has scores, N, M, the axes of the inputs and the mask.
N_OF_M = [
    ([[1.0], [3.0], [2.0], [0.0]], 2, 4, (0,), [[0], [1], [1], [0]]),
    ([[1.0, 2.0], [2.0, 1.0]], 1, 2, (0,), [[0, 1], [1, 0]]),
    ([[1.0, 2.0], [2.0, 1.0]], 1, 2, (1,), [[0, 1], [1, 0]]),
    ([[5.0], [5.0], [5.0]], 2, 3, (0,), [[1], [1], [0]]),
    ([[0.0], [-0.0]], 1, 2, (0,), [[1], [0]]),
    ([[np.nan], [np.inf]], 1, 2, (0,), [[1], [0]]),
    ([[1e-45], [3e-45]], 1, 2, (0,), [[0], [1]]),
    ([[[1.0], [4.0]], [[3.0], [2.0]]], 1, 4, (0, 1), [[[0], [1]], [[0], [0]]]),
    # The inputs of a transposed kernel stand on its last axis.
    ([[[1.0, 4.0]], [[3.0, 2.0]]], 1, 2, (2,), [[[0, 1]], [[1, 0]]]),
]
