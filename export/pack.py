"""A lossless coder for effective kernels: pure functions of arrays and bytes.

Two codings and a fallback; the smallest wins:

- `symbols`: a kernel of few distinct values (signed constants: three) is written in base n, as many symbols as fit a
  byte;
- `mask`: one bit an entry tells zeros from kept values, which follow as they are;
- `raw`: the entries as they are.

Bit masks and symbols are then compressed by DEFLATE with Huffman codes only: entries are independent, so that looking
for repeats would gain nothing, and TensorFlow can decompress it.
"""

import dataclasses
import math
import zlib

import numpy as np

MOST_SYMBOLS = 16


@dataclasses.dataclass(frozen=True)
class PackedKernel:
    """A kernel in one of the codings.

    Args:
        coding: `"symbols"`, `"mask"` or `"raw"`.
        shape: of the kernel.
        codes: compressed symbols or mask bits; empty for raw.
        values: float32: the distinct values by symbol, the kept values in row-major order, or all entries.
    """

    coding: str
    shape: tuple[int, ...]
    codes: bytes
    values: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Size of the codes and the values."""
        return len(self.codes) + self.values.nbytes


def encode(kernel: np.ndarray) -> PackedKernel:
    """Packs a float32 kernel; `decode` gives it back bit for bit, negative zeros and NaN included.

    Args:
        kernel: float32 array of any shape, empty ones included.

    Raises:
        ValueError: if it is not float32.

    >>> packed = encode(np.array([[0.5, 0.0, -0.5]] * 100, np.float32))
    >>> packed.coding, packed.num_bytes < 100
    ('symbols', True)
    """
    kernel = np.asarray(kernel)
    if kernel.dtype != np.float32:
        raise ValueError(f"encode takes a float32 kernel. Received: dtype={kernel.dtype}")
    flat = np.ascontiguousarray(kernel).ravel()
    raw = PackedKernel("raw", kernel.shape, b"", flat)
    if not flat.size:
        return raw
    bits = flat.view(np.uint32)  # -0.0 and 0.0, and all NaN, are values of their own
    kept = bits != 0
    candidates = [raw, PackedKernel("mask", kernel.shape, _compress(np.packbits(kept, bitorder="little")), flat[kept])]
    distinct, symbols = np.unique(bits, return_inverse=True)
    if len(distinct) <= MOST_SYMBOLS:
        codes = _compress(_join(symbols.ravel(), len(distinct)))
        candidates.append(PackedKernel("symbols", kernel.shape, codes, distinct.view(np.float32)))
    return min(candidates, key=lambda packed: packed.num_bytes)


def decode(packed: PackedKernel) -> np.ndarray:
    """The kernel that was encoded.

    >>> decode(encode(np.array([1.0, 0.0], np.float32))).tolist()
    [1.0, 0.0]
    """
    size = math.prod(packed.shape)
    if packed.coding == "raw":
        return packed.values.reshape(packed.shape)
    codes = np.frombuffer(zlib.decompress(packed.codes), np.uint8)
    if packed.coding == "mask":
        flat: np.ndarray = np.zeros(size, np.float32)
        flat[np.unpackbits(codes, count=size, bitorder="little").astype(bool)] = packed.values
        return flat.reshape(packed.shape)
    base = len(packed.values)
    symbols = codes[:, np.newaxis] // base ** np.arange(symbols_per_byte(base)) % base
    return packed.values[symbols.ravel()[:size]].reshape(packed.shape)


def symbols_per_byte(base: int) -> int:
    """How many symbols of base `base` fit a byte.

    >>> [symbols_per_byte(base) for base in (1, 2, 3, 4, 16)]
    [8, 8, 5, 4, 2]
    """
    return next(count for count in range(8, 0, -1) if max(base, 2) ** count <= 256)


def _join(symbols, base):
    """Bytes of base-n numbers, the first symbol the least significant digit; the last byte is filled with zeros."""
    per_byte = symbols_per_byte(base)
    digits = np.zeros((-(-symbols.size // per_byte), per_byte), np.int64)
    digits.ravel()[: symbols.size] = symbols
    return (digits * base ** np.arange(per_byte)).sum(axis=1).astype(np.uint8)


def _compress(codes):
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(codes.tobytes()) + compressor.flush()
