"""How much information a kernel holds: the size that no lossless code goes below."""

from collections.abc import Iterable
from typing import Any

import numpy as np

_FEW_VALUES = 256


def kernel_entropy_bits(kernel: np.ndarray, value_bytes: int = 4) -> float:
    """Information in a kernel whose entries are independent, in bits.

    With few distinct values (ternary kernels of signed constants) it is the empirical entropy of the values; otherwise
    that of the zeros' positions, and all bits of the entries that are not zero, of `value_bytes` each.

    Example:

    >>> kernel_entropy_bits(np.array([0.0, 0.0, 1.0, -1.0]))
    6.0
    """
    values, counts = np.unique(kernel, return_counts=True)
    if len(values) <= _FEW_VALUES:
        return entropy_bits(counts)
    kept = np.count_nonzero(kernel)
    return entropy_bits([kept, kernel.size - kept]) + 8.0 * value_bytes * int(kept)


def entropy_bits(counts: Iterable[Any]) -> float:
    """Information in independent symbols, in bits, from how often each of them occurs."""
    found = np.array([count for count in counts if count > 0], np.float64)
    return float(np.sum(found * np.log2(found.sum() / found)))
