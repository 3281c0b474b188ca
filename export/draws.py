"""Finds the draws that the entries of a frozen kernel come from."""

import numpy as np
import tensorflow as tf

from export.pack import Drawn
from iterand_tf.layers import SubnetKernel
from iterand_tf.methods import Supermask

# Normal values go through functions whose last bit may differ between processors.
_UNIFORM = ("kaiming_uniform", "uniform")


def find_draws(values: np.ndarray, source: SubnetKernel) -> Drawn | None:
    """The draws of a kernel's entries that are not zero; None unless its draws so far explain them all, bit for bit.

    An entry that several draws would explain counts for the first of them, so that few draws are told apart. Signed
    constants need one draw: each entry is as the first draw says, or has the other sign.
    """
    if not isinstance(source.method, Supermask):
        return None
    distribution = source.method.weight_distribution
    magnitude = float(np.float32(source.method.magnitude(source.fan_in)))
    places = np.flatnonzero(values.view(np.uint32))
    kept = values.ravel()[places]
    if distribution == "signed_constant":
        if np.any(np.abs(kept) != magnitude):
            return None
        positive = _uniform(source.seed_of_draw(0), values.size)[places] < 0.5
        return Drawn((source.seed_of_draw(0),), (positive != (kept > 0)).astype(np.int64), magnitude, signs=True)
    if distribution not in _UNIFORM:
        return None
    numbers = np.zeros(len(places), np.int64)
    unexplained = np.arange(len(places))
    for number in range(int(np.asarray(source.num_draws))):
        draw = _uniform(source.seed_of_draw(number), values.size, magnitude)[places[unexplained]]
        numbers[unexplained] = number
        unexplained = unexplained[draw.view(np.uint32) != kept[unexplained].view(np.uint32)]
        if not unexplained.size:
            return _by_frequency(numbers, source, magnitude)
    return None


def _by_frequency(numbers, source, magnitude):
    counts = np.bincount(numbers)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rank = np.zeros(len(counts), np.int64)
    rank[order] = np.arange(len(order))
    return Drawn(tuple(source.seed_of_draw(int(number)) for number in order), rank[numbers], magnitude, signs=False)


def _uniform(seed, size, bound=None):
    low, high = (0.0, 1.0) if bound is None else (-bound, bound)
    return tf.random.stateless_uniform((size,), [seed, 0], low, high, alg="philox").numpy()
