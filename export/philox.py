"""TensorFlow's random numbers, entry by entry: what tf.random.stateless_uniform draws at given places.

tf.random.stateless_uniform with `alg="philox"` is a function of the seed and of an entry's place in the flat tensor:
Philox-4x32-10 encrypts the number of each group of four entries, under a key that is made of the seed in the same way.
So a few entries of many draws cost no more than as many entries of one. All operations are stock ones, which a
SavedModel holds.

Reference:
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. TensorFlow documents its use of it at
    tf.random.Algorithm.
"""

import tensorflow as tf

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# By this key TensorFlow makes key and counter of a seed.
_SEED_KEY = (0x3EC8F720, 0x02461E29)
# As many bits of a random word become the fraction of a float32.
_FRACTION_BITS = 23
_INDEX, _INTEGERS = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.int64)


def _uniform_at(seeds, index, places):
    seeds = tf.cast(seeds, tf.int64)
    zero = tf.zeros_like(seeds)
    words = _philox(seeds, zero, zero, zero, *(zero + part for part in _SEED_KEY))
    low, high, *counter = (tf.gather(word, index) for word in words)
    words = _philox(places // 4, tf.zeros_like(places), *counter, low, high)
    lane = places % 4
    word = tf.where(lane < 2, tf.where(lane < 1, *words[:2]), tf.where(lane < 3, *words[2:]))
    return tf.cast(word & (2**_FRACTION_BITS - 1), tf.float32) * 2.0**-_FRACTION_BITS


@tf.function(input_signature=[_INTEGERS] * 6, autograph=False)
def _philox(a, b, c, d, low, high):
    """Words of 32 bits stand in 64, where their products have room; a negative product has the same bits."""
    half, word = tf.constant(32, tf.int64), tf.constant(2**32 - 1, tf.int64)

    def one_round(number, a, b, c, d):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        low_key, high_key = ((part + number * step) & word for part, step in zip((low, high), _KEY_STEPS, strict=True))
        a = (tf.bitwise.right_shift(second, half) & word) ^ b ^ low_key
        c = (tf.bitwise.right_shift(first, half) & word) ^ d ^ high_key
        return number + 1, a, second & word, c, first & word

    start = tf.constant(0, tf.int64)
    _, *words = tf.while_loop(lambda number, *_: number < _ROUNDS, one_round, [start, a, b, c, d])
    return words


# Float32 values in [0, 1): entry `places[i]` of the draw with `seeds[index[i]]`.
uniform_at = tf.function(_uniform_at, input_signature=[_INDEX, _INDEX, _INTEGERS], autograph=False)
