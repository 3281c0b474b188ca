"""Kernels that are packed in the SavedModel's graph and unpacked once, when it is loaded.

Stock operations only. Each packed kernel has a checksum, which is verified before it is unpacked; so have all other
constants of the network together.
"""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from export.pack import PackedKernel, symbols_per_byte
from export.unsaved_variable import unsaved_variable

# The largest base of which two symbols fit a byte.
_SHARE_A_BYTE = 16


class PackedKernels(tf.saved_model.experimental.TrackableResource):
    """Variables that hold unpacked kernels, and the initializer that fills them whenever the SavedModel is loaded.

    Args:
        packed: the kernels.
        names: of their variables.
        scales: of their output channels (last axis), float32, by which the unpacked kernels are multiplied; or None.
        constants: tensors of any type and shape that the network uses beside the kernels.
    """

    def __init__(
        self,
        packed: Sequence[PackedKernel],
        names: Sequence[str],
        scales: Sequence[np.ndarray | None],
        constants: Sequence[tf.Tensor],
    ):
        super().__init__()
        self._packed, self._constants = packed, constants
        self._scales = [None if scale is None else tf.constant(scale) for scale in scales]
        self._checksums = self._fingerprints(_parts(packed)).numpy()
        self.variables = [unsaved_variable(kernel.shape, name) for kernel, name in zip(packed, names, strict=True)]
        self._resource_handle = self._create_resource()
        self._initialize()

    def _create_resource(self):
        # The variables hold the state.
        return tf.constant(0)

    def _initialize(self):
        parts = _parts(self._packed)
        intact = tf.reduce_all(tf.equal(self._fingerprints(parts), self._checksums))
        with tf.control_dependencies([tf.debugging.Assert(intact, ["a packed kernel is damaged; export anew"])]):
            for index, (packed, scale, variable) in enumerate(
                zip(self._packed, self._scales, self.variables, strict=True)
            ):
                variable.assign(_unpack(packed, parts[2 * index], parts[2 * index + 1], scale))

    def _fingerprints(self, parts):
        """Checksums of each packed kernel's codes and values, and of all constants together."""
        constants = [*self._constants, *(scale for scale in self._scales if scale is not None)]
        by_type: dict[tf.DType, list[tf.Tensor]] = {}
        for constant in constants:
            flat = constant if len(constant.shape) == 1 else tf.reshape(constant, [-1])
            by_type.setdefault(constant.dtype, []).append(flat)
        wholes = [tf.io.serialize_tensor(tf.concat(flat, axis=0)) for flat in by_type.values()]
        return tf.strings.to_hash_bucket_fast(tf.stack([*parts, *wholes]), 2**62)


def _parts(packed):
    """Scalar strings: codes, values, codes, values, ..."""
    return [tf.constant(part) for kernel in packed for part in (kernel.codes, kernel.values.tobytes())]


def unpack(packed: PackedKernel) -> tf.Tensor:
    """The kernel, by operations that a SavedModel holds.

    Example:

    >>> from export.pack import encode
    >>> unpack(encode(np.array([1.0, 0.0], np.float32))).numpy().tolist()
    [1.0, 0.0]
    """
    codes, data = _parts([packed])
    return _unpack(packed, codes, data, None)


def _unpack(packed, codes, data, scale):
    # Without a scale the kernel stays as it is: a product with 1 would change NaN's bits.
    arguments = [codes, data, tf.constant(packed.shape, tf.int32), *([] if scale is None else [scale])]
    return _unpacker(packed.coding, packed.values.dtype.name, scale is not None)(*arguments)


@functools.cache
def _unpacker(coding, dtype, scaled):
    """One function for all kernels that are alike, so that the graph holds its operations once."""
    string, shape = tf.TensorSpec((), tf.string), tf.TensorSpec((None,), tf.int32)
    signature = [string, string, shape, *([tf.TensorSpec((None,), tf.float32)] if scaled else [])]

    @tf.function(input_signature=signature, autograph=False)
    def unpack_kernel(codes, data, shape, scale=None):
        values = tf.cast(tf.io.decode_raw(data, dtype), tf.float32)
        kernel = tf.reshape(_ENTRIES[coding](codes, values)[: tf.reduce_prod(shape)], shape)
        return kernel if scale is None else kernel * scale

    return unpack_kernel


def _of_symbols(codes, table):
    base = tf.size(table)
    per_byte = tf.gather([0, *map(symbols_per_byte, range(1, _SHARE_A_BYTE + 2))], tf.minimum(base, _SHARE_A_BYTE + 1))
    digits = tf.range(256)[:, tf.newaxis] // base ** tf.range(per_byte)[tf.newaxis] % base
    return tf.reshape(tf.gather(tf.gather(table, digits), tf.cast(_bytes(codes), tf.int32)), [-1])


def _of_mask(codes, kept_values):
    bits = tf.bitwise.right_shift(_bytes(codes)[:, tf.newaxis], tf.constant([list(range(8))], tf.uint8)) & 1
    kept = tf.cast(tf.reshape(bits, [-1]), tf.int32)
    # A scatter would add, which loses negative zeros.
    with_zero = tf.concat([kept_values, [0.0]], axis=0)
    return tf.gather(with_zero, tf.where(kept > 0, tf.cumsum(kept) - 1, tf.size(kept_values)))


def _bytes(codes):
    return tf.io.decode_raw(tf.io.decode_compressed(codes, "ZLIB"), tf.uint8)


_ENTRIES = {"symbols": _of_symbols, "mask": _of_mask, "raw": lambda codes, values: values}
