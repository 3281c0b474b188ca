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
