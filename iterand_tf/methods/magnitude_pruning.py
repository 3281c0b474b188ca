"""MagnitudePruning: train the kernel and keep its largest entries."""

import dataclasses
from typing import ClassVar

import keras
from keras import ops

from iterand_tf.methods.method import Method


@keras.saving.register_keras_serializable(package="iterand_tf")
@dataclasses.dataclass(frozen=True)
class MagnitudePruning(Method):
    """Trains the kernel and computes with its largest entries.

    The layer computes with `W * mask`, where the mask is 1 for the largest `|W|`. Entries that the mask leaves out get
    no gradient from the loss; momentum, weight decay and a regularizer still act on them. They come back where others
    shrink below them, or where the sparsity is lowered. The kernel starts as the stock layer
    would start it, or with the values that the layer has. Raise the sparsity in training with `SparsityScheduler`.

    Args:
        sparsity: fraction of each kernel that is removed, in [0, 1). Exactly `round(sparsity * size)` entries are.
        mask: `"per_kernel"` keeps the highest of each kernel. `"global"` ranks the kernels of a model together, at each
            call of `set_sparsity` and event of `SparsityScheduler`; until then each keeps its own. `"N:M"`, such as
            `"2:4"`, keeps at most N of every M neighbouring inputs, at a sparsity of at least `1 - N / M`.
        min_per_channel: each output keeps at least this many inputs, a whole number of at least 0.

    Raises:
        ValueError: if a parameter is out of its range, or two do not go together.

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, section 3;
        Zhu and Gupta, "To prune, or not to prune", 2017, section 3, for schedules.

    Example:

    >>> import iterand_tf
    >>> layer = iterand_tf.SubnetDense(2, method=iterand_tf.MagnitudePruning(0.75))
    >>> layer.build((None, 8))
    >>> layer.num_weights, layer.num_kept
    (16, 4)
    """

    trains_kernel: ClassVar[bool] = True
    has_scores: ClassVar[bool] = False

    def ranked(self, kernel, scores):
        return ops.abs(ops.cast(kernel, "float32"))
