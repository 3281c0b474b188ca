"""How much information a kernel holds: the size that no lossless code goes below."""

import numpy as np

_FEW_VALUES = 256


def kernel_entropy_bits(kernel: np.ndarray, value_bytes: int = 4) -> float:
    """Information in a kernel whose entries are independent, in bits.

    With few distinct values (ternary kernels of signed constants) it is the empirical entropy of the values; otherwise
    that of the zeros' positions, and all bits of the entries that are not zero.

    Args:
        kernel: float array of any shape.
        value_bytes: size of an entry that is not zero.

    Example:

    >>> kernel_entropy_bits(np.array([0.0, 0.0, 1.0, -1.0]))
    6.0
    """
    values, counts = np.unique(kernel, return_counts=True)
    if len(values) <= _FEW_VALUES:
        return _entropy_bits(counts)
    kept = np.count_nonzero(kernel)
    return _entropy_bits(np.array([kept, kernel.size - kept])) + 8.0 * value_bytes * int(kept)


def _entropy_bits(counts):
    counts = counts[counts > 0]
    return float(np.sum(counts * np.log2(counts.sum() / counts))) if counts.size else 0.0
