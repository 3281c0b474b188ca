"""Kernels that are packed in the SavedModel's graph and unpacked once, when it is loaded.

Stock operations only. Each packed kernel has a checksum, which is verified before it is unpacked.
"""

import numpy as np
import tensorflow as tf

from export.pack import PackedKernel, encode, symbols_per_byte
from export.unsaved_variable import unsaved_variable

_BUCKETS = 2**62


class PackedKernels(tf.saved_model.experimental.TrackableResource):
    """Variables that hold unpacked kernels, and the initializer that fills them whenever the SavedModel is loaded.

    Args:
        kernels: float32 arrays by the names of their variables.
    """

    def __init__(self, kernels: dict[str, np.ndarray]):
        super().__init__()
        self.packed = [encode(kernel) for kernel in kernels.values()]
        self.variables = [
            unsaved_variable(packed.shape, name) for name, packed in zip(kernels, self.packed, strict=True)
        ]
        self._checksums = [checksums(packed) for packed in self.packed]
        self._resource_handle = self._create_resource()
        self._initialize()

    def _create_resource(self):
        return tf.constant(0)  # the variables hold the state

    def _initialize(self):
        for packed, checksum, variable in zip(self.packed, self._checksums, self.variables, strict=True):
            variable.assign(unpack(packed, checksum))


def checksums(packed: PackedKernel) -> list[int]:
    """64-bit fingerprints of a packed kernel's codes and values."""
    return [int(_checksum(part)) for part in (packed.codes, packed.values.tobytes())]


def unpack(packed: PackedKernel, checksum: list[int]) -> tf.Tensor:
    """The kernel, by operations that a SavedModel holds.

    Raises:
        tf.errors.InvalidArgumentError: if the checksum is of other codes or values.

    >>> packed = encode(np.array([1.0, 0.0], np.float32))
    >>> unpack(packed, checksums(packed)).numpy().tolist()
    [1.0, 0.0]
    """
    shape = tf.constant(packed.shape, tf.int32)
    codes, values = tf.constant(packed.codes), tf.constant(packed.values.tobytes())
    expected = tf.constant(checksum, tf.int64)
    if packed.coding == "symbols":
        return _unpack_symbols(codes, values, expected, symbols_per_byte(len(packed.values)), shape)
    if packed.coding == "mask":
        return _unpack_mask(codes, values, expected, shape)
    return _unpack_raw(codes, values, expected, shape)


def _checksum(data):
    return tf.strings.to_hash_bucket_fast(data, _BUCKETS)


def _verified(codes, values, checksum):
    """The values, if both parts are what was written."""
    intact = tf.reduce_all(tf.equal(tf.stack([_checksum(codes), _checksum(values)]), checksum))
    with tf.control_dependencies([tf.debugging.Assert(intact, ["a packed kernel is damaged; export it anew"])]):
        return tf.io.decode_raw(values, tf.float32)


_PARTS = [tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int64)]
_SHAPE = tf.TensorSpec((None,), tf.int32)


# One function for all kernels of a coding, so that the graph holds its operations once.
@tf.function(input_signature=[*_PARTS, tf.TensorSpec((), tf.int32), _SHAPE], autograph=False)
def _unpack_symbols(codes, values, checksum, per_byte, shape):
    table = _verified(codes, values, checksum)
    base = tf.size(table)
    codes = tf.io.decode_raw(tf.io.decode_compressed(codes, "ZLIB"), tf.uint8)
    digits = tf.range(256)[:, tf.newaxis] // base ** tf.range(per_byte)[tf.newaxis] % base
    flat = tf.reshape(tf.gather(tf.gather(table, digits), tf.cast(codes, tf.int32)), [-1])
    return tf.reshape(flat[: tf.reduce_prod(shape)], shape)


@tf.function(input_signature=[*_PARTS, _SHAPE], autograph=False)
def _unpack_mask(codes, values, checksum, shape):
    kept_values = _verified(codes, values, checksum)
    codes = tf.io.decode_raw(tf.io.decode_compressed(codes, "ZLIB"), tf.uint8)
    bits = tf.bitwise.right_shift(codes[:, tf.newaxis], tf.constant([list(range(8))], tf.uint8)) & 1
    kept = tf.cast(tf.reshape(bits, [-1])[: tf.reduce_prod(shape)], tf.int32)
    with_zero = tf.concat([kept_values, [0.0]], axis=0)  # a scatter would add, which loses negative zeros
    index = tf.where(kept > 0, tf.cumsum(kept) - 1, tf.size(kept_values))
    return tf.reshape(tf.gather(with_zero, index), shape)


@tf.function(input_signature=[*_PARTS, _SHAPE], autograph=False)
def _unpack_raw(codes, values, checksum, shape):
    return tf.reshape(_verified(codes, values, checksum), shape)
