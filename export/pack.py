"""A lossless coder for effective kernels: pure functions of arrays and bytes.

A kernel is coded in parts, each a string. But for `raw` the first one is its mask, coded by `export.bits`; the others
are about the kept entries alone, in row-major order. The smallest coding wins:

- `raw`: all entries as they are;
- `mask`: the kept values as they are;
- `symbols`: few distinct values (signed constants: two) are numbered, and the numbers written in base n, as many as fit
  a byte;
- `seeded`: of which draw each entry is, since an entry of a frozen kernel is a function of a seed and its place. A bit
  tells the most frequent draw from the others, and a number those from each other. Whoever decodes draws again, see
  `export.philox`;
- `seeded_signs`: the same for signed constants, where a bit tells entries whose sign is not that of the first draw.

Under DEFLATE, which TensorFlow can decompress, large kernels come within 2 % of the entropy of what is stored, up to a
sparsity of 0.99 (tests/export/pack_test.py has the table).
"""

import dataclasses

import ml_dtypes
import numpy as np

from export.bits import compress, encode_bits
from export.entropy import entropy_bits

MOST_SYMBOLS = 256
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Which draws the kept entries of a kernel come from.

    Args:
        seeds: of the draws, the most frequent first.
        index: for each kept entry, in row-major order, the place of its draw in `seeds`. For signs, 1 where the entry
            has the other sign than the one draw of `seeds`, and 0 elsewhere.
        magnitude: bound of the uniform values, or that of the signed constant.
    """

    seeds: tuple[int, ...]
    index: np.ndarray
    magnitude: float
    signs: bool


@dataclasses.dataclass(frozen=True)
class PackedKernel:
    """A kernel in one of the codings.

    Args:
        kinds: how each part is coded: `"bits"`, `"gaps"`, `"plain"`, `"symbols"`, `"wide_symbols"`, or the name of a
            type.
        parts: the strings. Of seeded codings: mask, seeds, magnitude, and where there are entries of other draws than
            the first (or of another sign) which these are, and the numbers of their draws.
        num_draws: how many draws a seeded kernel has entries of; 0 for the other codings.
    """

    coding: str
    shape: tuple[int, ...]
    kinds: tuple[str, ...]
    parts: tuple[bytes, ...]
    entropy_bits: float
    num_draws: int = 0

    @property
    def num_bytes(self) -> int:
        """Size of all parts."""
        return sum(map(len, self.parts))

    @property
    def dtype(self) -> str:
        """Type of the values as they are stored, or as they are drawn again; a key of `DTYPES`."""
        return "float32" if self.num_draws else self.kinds[-1]


def round_values(kernel: np.ndarray, dtype: str) -> np.ndarray:
    """The kernel with its values rounded to a type of `DTYPES`, as float32.

    A kernel of few distinct values comes back as it is: the type is that of stored values, and they are few.
    """
    if dtype == "float32" or len(np.unique(kernel.view(np.uint32))) <= MOST_SYMBOLS:
        return kernel
    with np.errstate(over="ignore"):
        rounded: np.ndarray = kernel.astype(DTYPES[dtype]).astype(np.float32)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(kernel)):
        raise ValueError(f"a kernel has values that are too large for {dtype}; use bfloat16 or float32.")
    return rounded


def encode(kernel: np.ndarray, dtype: str = "float32") -> PackedKernel:
    """Packs a float32 kernel by its values; `export.unpack` gives `round_values(kernel, dtype)` back bit for bit.

    In float32 that is the kernel itself, negative zeros and NaN included.
    """
    kernel = np.asarray(kernel)
    if kernel.dtype != np.float32:
        raise ValueError(f"encode takes a float32 kernel. Received: dtype={kernel.dtype}")
    flat = round_values(np.ascontiguousarray(kernel).ravel(), dtype)
    coded = min(_by_value(flat, dtype), key=lambda candidate: candidate.num_bytes)
    return dataclasses.replace(coded, shape=kernel.shape)


def _by_value(flat, dtype):
    """The flat array in the codings that hold values."""
    # As bits, -0.0 and 0.0, and all NaN, are values of their own.
    bits: np.ndarray = flat.view(np.uint32)
    kept = bits != 0
    distinct, symbols, counts = np.unique(bits[kept], return_inverse=True, return_counts=True)
    few = len(distinct) <= MOST_SYMBOLS
    value_type = "float32" if few else dtype
    values = flat.astype(DTYPES[value_type])
    value_bits = 8 * values.itemsize
    raw = PackedKernel("raw", flat.shape, (value_type,), (values.tobytes(),), value_bits * flat.size)
    if not flat.size:
        return [raw]
    mask_kind, mask = encode_bits(kept)
    entropy = entropy_bits([kept.sum(), flat.size - kept.sum()]) + value_bits * int(kept.sum())
    parts: tuple[bytes, ...] = (mask, values[kept].tobytes())
    candidates = [raw, PackedKernel("mask", flat.shape, (mask_kind, value_type), parts, entropy)]
    if few:
        kind, codes = _encode_symbols(symbols.ravel(), len(distinct))
        entropy = entropy_bits([*counts, flat.size - kept.sum()])
        parts = mask, codes, distinct.tobytes()
        candidates.append(PackedKernel("symbols", flat.shape, (mask_kind, kind, value_type), parts, entropy))
    return candidates


def encode_drawn(kernel: np.ndarray, drawn: Drawn) -> PackedKernel:
    """Packs a float32 kernel by the draws that all its entries but positive zeros come from.

    `export.unpack` gives it back bit for bit.
    """
    flat = np.ascontiguousarray(kernel).ravel()
    kept = flat.view(np.uint32) != 0
    counts = np.bincount(drawn.index, minlength=len(drawn.seeds))
    entropy = entropy_bits([*counts, flat.size - kept.sum()])
    others = drawn.index > 0
    coding = "seeded_signs" if drawn.signs else "seeded"
    coded = [
        encode_bits(kept),
        ("int32", np.array(drawn.seeds, np.int32).tobytes()),
        ("float32", np.float32(drawn.magnitude).tobytes()),
    ]
    if others.any():
        coded.append(encode_bits(others))
        if not drawn.signs:
            coded.append(_encode_symbols(drawn.index[others] - 1, len(drawn.seeds) - 1))
    kinds, parts = zip(*coded, strict=True)
    return PackedKernel(coding, kernel.shape, kinds, parts, entropy, len(drawn.seeds))


def symbols_per_byte(base: int) -> int:
    """How many symbols of base `base` fit a byte; at least one.

    Example:

    >>> [symbols_per_byte(base) for base in (1, 2, 3, 4, 16, 17, 256)]
    [8, 8, 5, 4, 2, 1, 1]
    """
    return next(count for count in range(8, 0, -1) if max(base, 2) ** count <= 256)


def _encode_symbols(symbols, base):
    """The kind, and the codes of whole numbers below `base`.

    Several go into a byte, the first as the least significant digit; the last byte is filled with zeros. Of symbols
    that need two bytes, all low bytes stand before all high ones.
    """
    if base > MOST_SYMBOLS:
        return "wide_symbols", compress(np.concatenate([symbols % 256, symbols // 256]).astype(np.uint8))
    per_byte = symbols_per_byte(base)
    digits = np.zeros((-(-symbols.size // per_byte), per_byte), np.int64)
    digits.ravel()[: symbols.size] = symbols
    return "symbols", compress((digits * base ** np.arange(per_byte)).sum(axis=1).astype(np.uint8))
