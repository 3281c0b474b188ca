"""RandomPruning: train the kernel under a fixed random mask."""

import dataclasses
from typing import ClassVar

import keras

from iterand_tf import distributions
from iterand_tf.methods.method import Method


@keras.saving.register_keras_serializable(package="iterand_tf")
@dataclasses.dataclass(frozen=True)
class RandomPruning(Method):
    """Trains the kernel under a mask that is drawn once, at random: the baseline that every pruning method must beat.

    The layer computes with `W * mask`, where the mask is 1 for the largest of random scores that are never trained.
    A higher sparsity keeps a subset of what a lower one keeps. The kernel starts as the stock layer would start it, or
    with the values that the layer has.

    Args:
        sparsity: fraction of each kernel that is removed, in [0, 1). Exactly `round(sparsity * size)` entries are.
        mask: `"per_kernel"` keeps the highest of each kernel. `"global"` ranks the kernels of a model together, at each
            call of `set_sparsity` and event of `SparsityScheduler`; until then each keeps its own. `"N:M"`, such as
            `"2:4"`, keeps at most N of every M neighbouring inputs, at a sparsity of at least `1 - N / M`.
        min_per_channel: each output keeps at least this many inputs, a whole number of at least 0.

    Raises:
        ValueError: if a parameter is out of its range, or two do not go together.

    Reference:
        Blalock et al., "What is the State of Neural Network Pruning?", MLSys 2020, section 2.

    Example:

    >>> import iterand_tf
    >>> layer = iterand_tf.SubnetDense(2, sparsity=0.75, method="random_pruning", seed=0)
    >>> layer.build((None, 8))
    >>> layer.num_weights, layer.num_kept
    (16, 4)
    """

    trains_kernel: ClassVar[bool] = True
    has_scores: ClassVar[bool] = True

    def first_scores(self, shape, fan_in, seed):
        return distributions.sample("kaiming_uniform", shape, seed, fan_in=fan_in)

    def ranked(self, kernel, scores):
        return scores
