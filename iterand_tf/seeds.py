"""Seeds derived from seeds, so that every draw is a pure function of what it is drawn for."""

import random
import zlib

import numpy as np

from iterand_tf import checks


def fold(seed: int, *parts: int | str) -> int:
    """Returns a seed in [0, 2**31) that depends on `seed` and on every part, in order.

    Example:

    >>> fold(1, "conv1", 300) == fold(1, "conv1", 300) != fold(1, "conv2", 300)
    True
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (seed, *parts)]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def make_seed(seed: int | None) -> int:
    """`seed`, or where it is None one from Python's generator, which `keras.utils.set_random_seed` controls."""
    if seed is None:
        return random.randrange(2**31)
    return checks.whole_number("seed", seed, minimum=0)
