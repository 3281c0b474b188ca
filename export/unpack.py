"""Kernels that are packed in the SavedModel's graph and unpacked once, when it is loaded.

Stock operations only. All parts of the packed kernels have checksums, which are verified before they are unpacked; so
have all other constants of the network together. Kernels that are drawn again have one of their entries too.
"""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from export.bits import MOST_ZEROS, compress
from export.network import Kernel
from export.pack import PackedKernel, symbols_per_byte
from export.philox import uniform_at
from export.unsaved_variable import unsaved_variable

# The largest base of which two symbols fit a byte.
_SHARE_A_BYTE = 16
_BUCKETS = 2**62


class PackedKernels(tf.saved_model.experimental.TrackableResource):
    """Variables that hold unpacked, scaled kernels, and the initializer that fills them when the SavedModel is loaded.

    The other weights are joined to one constant and one variable for each type, since each constant takes more of the
    graph than its own bytes.
    """

    def __init__(
        self,
        packed: Sequence[PackedKernel],
        kernels: Sequence[Kernel],
        other_weights: Sequence[np.ndarray],
    ):
        super().__init__()
        self._packed = packed
        self._is_scaled = [kernel.scale is not None for kernel in kernels]
        # By `scales`, and by the names of types.
        self._joined = {"scales": [kernel.scale for kernel in kernels if kernel.scale is not None]}
        for array in other_weights:
            self._joined.setdefault(array.dtype.name, []).append(array)
        self._types = [array.dtype.name for array in other_weights]
        # Of the entries that are drawn again.
        self._fingerprints = [
            _fingerprint(kernel.values).numpy() if each.num_draws else None
            for each, kernel in zip(packed, kernels, strict=True)
        ]
        self._checksums = _fingerprints(*self._constants()).numpy()
        self.variables = [unsaved_variable(kernel.values.shape, kernel.name) for kernel in kernels]
        self.joined_variables = {
            name: unsaved_variable((sum(array.size for array in self._joined[name]),), name, name)
            for name in dict.fromkeys(self._types)
        }
        self._resource_handle = self._create_resource()
        self._initialize()

    def other_weights(self) -> list[tf.Tensor]:
        """The other weights, as the variables hold them."""
        pieces = {name: _split(variable, self._joined[name]) for name, variable in self.joined_variables.items()}
        return [next(pieces[name]) for name in self._types]

    def _create_resource(self):
        # The variables hold the state.
        return tf.constant(0)

    def _initialize(self):
        parts, joined = self._constants()
        intact = tf.reduce_all(tf.equal(_fingerprints(parts, joined), self._checksums))
        with tf.control_dependencies([tf.debugging.Assert(intact, ["a packed kernel is damaged; export anew"])]):
            scales = self._joined["scales"]
            scales = _split(_of_bytes(joined["scales"], "float32"), scales) if scales else iter(())
            for packed, own, is_scaled, fingerprint, variable in zip(
                self._packed, parts, self._is_scaled, self._fingerprints, self.variables, strict=True
            ):
                variable.assign(_unpack(packed, own, next(scales) if is_scaled else None, fingerprint))
            for name, variable in self.joined_variables.items():
                variable.assign(_of_bytes(joined[name], name))

    def _constants(self):
        """For each kernel a vector of strings, and by what they are the joined arrays, compressed.

        TensorFlow may write a constant of fractions shorter, and take a negative zero for one that is not.
        """
        joined = {
            name: tf.constant(compress(np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)))
            for name, arrays in self._joined.items()
            if arrays
        }
        # The parts of a kernel, and the sizes of its axes.
        parts = [tf.constant([*kernel.parts, np.array(kernel.shape, np.int32).tobytes()]) for kernel in self._packed]
        return parts, joined


def _split(flat, arrays):
    """The arrays that were joined, as tensors."""
    for piece, array in zip(tf.split(flat, [array.size for array in arrays]), arrays, strict=True):
        yield piece if array.ndim == 1 else tf.reshape(piece, array.shape)


def _of_bytes(string, dtype):
    """The flat tensor; TensorFlow reads bytes as signed integers only."""
    read = {"uint32": "int32", "uint64": "int64"}.get(dtype, dtype)
    flat = tf.io.decode_raw(tf.io.decode_compressed(string, "ZLIB"), read)
    return flat if read == dtype else tf.bitcast(flat, dtype)


def _fingerprints(parts, joined):
    """Checksums of each part of each kernel, and of the joined arrays."""
    strings = tf.concat([*parts, *([string] for string in joined.values())], axis=0)
    return tf.strings.to_hash_bucket_fast(strings, _BUCKETS)


def _fingerprint(entries):
    return tf.strings.to_hash_bucket_fast(tf.io.serialize_tensor(entries), _BUCKETS)


def _unpack(packed, parts, scale, fingerprint):
    # Without a scale the kernel stays as it is: a product with 1 would change NaN's bits.
    given = {"scale": scale, "fingerprint": fingerprint}
    given = {name: tf.convert_to_tensor(value) for name, value in given.items() if value is not None}
    return _unpacker(packed.coding, packed.kinds, tuple(given))(parts, *given.values())


@functools.cache
def _unpacker(coding, kinds, given):
    """One function for all kernels that are alike, so that the graph holds its operations once."""
    specs = {"scale": tf.TensorSpec((None,), tf.float32), "fingerprint": tf.TensorSpec((), tf.int64)}
    signature = [tf.TensorSpec((len(kinds) + 1,), tf.string), *(specs[name] for name in given)]

    @tf.function(input_signature=signature, autograph=False)
    def unpack_kernel(parts, *values):
        *parts, shape = tf.unstack(parts)
        shape = tf.io.decode_raw(shape, tf.int32)
        if coding == "raw":
            entries = _values(kinds[0], parts[0])
        else:
            places = _places(kinds[0])(parts[0])
            kept = _KEPT[coding](places, kinds[1:], parts[1:])
            # A scatter that adds would lose negative zeros.
            zeros = tf.zeros([tf.reduce_prod(shape)])
            entries = tf.tensor_scatter_nd_update(zeros, places[:, tf.newaxis], kept)
        arguments = dict(zip(given, values, strict=True))
        kernel = tf.reshape(entries, shape)
        if "fingerprint" in arguments:
            intact = tf.equal(_fingerprint(kernel), arguments["fingerprint"])
            message = ["a kernel that is drawn again is not the one that was exported; export anew"]
            with tf.control_dependencies([tf.debugging.Assert(intact, message)]):
                kernel = tf.identity(kernel)
        return kernel * arguments["scale"] if "scale" in arguments else kernel

    return unpack_kernel


def _kept_values(places, kinds, parts):
    return _values(kinds[0], parts[0])


def _kept_symbols(places, kinds, parts):
    table = _values(kinds[1], parts[1])
    return tf.gather(table, _symbols(kinds[0])(parts[0], tf.size(table))[: tf.size(places)])


def _kept_draws(places, kinds, parts):
    seeds, bound = _seeds_and_magnitude(kinds, parts)
    index = tf.zeros_like(places, tf.int32)
    if len(kinds) > 2:
        others = _places(kinds[2])(parts[2])
        numbers = 1 + _symbols(kinds[3])(parts[3], tf.size(seeds) - 1)[: tf.size(others)]
        index = tf.tensor_scatter_nd_update(index, others[:, tf.newaxis], numbers)
    return uniform_at(seeds, index, places) * (bound + bound) - bound


def _kept_signs(places, kinds, parts):
    seed, constant = _seeds_and_magnitude(kinds, parts)
    signs = tf.where(uniform_at(seed, tf.zeros_like(places, tf.int32), places) < 0.5, constant, -constant)
    if len(kinds) > 2:
        others = _places(kinds[2])(parts[2])
        signs = tf.tensor_scatter_nd_update(signs, others[:, tf.newaxis], -tf.gather(signs, others))
    return signs


def _seeds_and_magnitude(kinds, parts):
    return (tf.io.decode_raw(part, kind) for kind, part in zip(kinds[:2], parts[:2], strict=True))


_KEPT = {"mask": _kept_values, "symbols": _kept_symbols, "seeded": _kept_draws, "seeded_signs": _kept_signs}


def _values(kind, part):
    return tf.cast(tf.io.decode_raw(part, kind), tf.float32)


def _inflated(codes):
    return tf.io.decode_raw(tf.io.decode_compressed(codes, "ZLIB"), tf.uint8)


def _places_of_bits(codes):
    return _places_in(_inflated(codes))


def _places_of_plain_bits(codes):
    return _places_in(tf.io.decode_raw(codes, tf.uint8))


def _places_in(packed):
    bits = tf.bitwise.right_shift(packed[:, tf.newaxis], tf.constant([list(range(8))], tf.uint8)) & 1
    return tf.where(tf.reshape(bits, [-1]) > 0)[:, 0]


def _places_of_gaps(codes):
    gaps = tf.cast(_inflated(codes), tf.int64)
    is_one = gaps < MOST_ZEROS
    return tf.boolean_mask(tf.cumsum(gaps + tf.cast(is_one, tf.int64)), is_one) - 1


@functools.cache
def _places(kind):
    """A function of codes to the places of the ones, see `export.bits`."""
    places = {"bits": _places_of_bits, "gaps": _places_of_gaps, "plain": _places_of_plain_bits}[kind]
    return tf.function(places, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def _narrow_symbols(codes, base):
    per_byte = tf.gather([0, *map(symbols_per_byte, range(1, _SHARE_A_BYTE + 2))], tf.minimum(base, _SHARE_A_BYTE + 1))
    divisors = tf.maximum(base, 1) ** tf.range(per_byte)
    return tf.reshape(tf.cast(_inflated(codes), tf.int32)[:, tf.newaxis] // divisors % tf.maximum(base, 1), [-1])


def _wide_symbols(codes, base):
    low, high = tf.unstack(tf.reshape(tf.cast(_inflated(codes), tf.int32), [2, -1]))
    return low + 256 * high


@functools.cache
def _symbols(kind):
    """A function of codes and base to the symbols, and some after them."""
    symbols = {"symbols": _narrow_symbols, "wide_symbols": _wide_symbols}[kind]
    signature = [tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32)]
    return tf.function(symbols, input_signature=signature, autograph=False)
