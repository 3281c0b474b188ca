"""TensorFlow's random numbers, entry by entry: what tf.random.stateless_uniform draws at given places.

tf.random.stateless_uniform with `alg="philox"` is a function of the seed and of an entry's place in the flat tensor:
Philox-4x32-10 encrypts the number of each group of four entries, under a key that is made of the seed in the same way.
So a few entries of many draws cost no more than as many entries of one. `export.unpack` has the same in operations that
a SavedModel holds.

Reference:
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. TensorFlow documents its use of it at
    tf.random.Algorithm.
"""

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
# By this key TensorFlow makes key and counter of a seed.
SEED_KEY = (0x3EC8F720, 0x02461E29)
# As many bits of a random word become the fraction of a float32.
FRACTION_BITS = 23
_WORD = 2**32 - 1


def uniform_at(seeds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Float32 values in [0, 1): entry `places[i]` of the draw with `seeds[i]`.

    Args:
        seeds: whole numbers in [0, 2**31).
        places: in the flat tensor, of the shape of `seeds`.

    Example:

    >>> import tensorflow as tf
    >>> draw = tf.random.stateless_uniform((10,), seed=[7, 0], alg="philox").numpy()
    >>> np.array_equal(uniform_at(np.array([7, 7]), np.array([9, 2])), draw[[9, 2]])
    True
    """
    seeds, places = np.asarray(seeds, np.uint64), np.asarray(places, np.uint64)
    distinct, index = np.unique(seeds, return_inverse=True)
    zero = np.zeros_like(distinct)
    low, high, *counter = (word[index] for word in _philox((distinct, zero, zero, zero), SEED_KEY))
    groups = places // np.uint64(4)
    words = np.stack(_philox((groups, np.zeros_like(groups), *counter), (low, high)))
    chosen = np.take_along_axis(words, (places % np.uint64(4)).astype(np.int64)[np.newaxis], axis=0)[0]
    return (chosen & np.uint64(2**FRACTION_BITS - 1)).astype(np.float32) * np.float32(2.0**-FRACTION_BITS)


def _philox(counter, key):
    word, half = np.uint64(_WORD), np.uint64(32)
    (a, b, c, d), key = counter, tuple(np.uint64(part) for part in key)
    for _ in range(ROUNDS):
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b, c, d = (second >> half) ^ b ^ key[0], second & word, (first >> half) ^ d ^ key[1], first & word
        key = tuple((part + np.uint64(step)) & word for part, step in zip(key, KEY_STEPS, strict=True))
    return a, b, c, d
