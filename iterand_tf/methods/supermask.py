"""Supermask: choose entries of a frozen random kernel by trained scores."""

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from iterand_tf import distributions
from iterand_tf.checks import option
from iterand_tf.methods.method import Method

_TRANSFORMS = {"identity": lambda scores: scores, "abs": ops.abs}


@keras.saving.register_keras_serializable(package="iterand_tf")
@dataclasses.dataclass(frozen=True)
class Supermask(Method):
    """Chooses entries of a frozen random kernel by trained scores, without training the kernel.

    The kernel W is drawn at random and never trained. The optimizer trains scores S of the same shape. The layer
    computes with `W * mask`, where the mask is 1 for the highest scores. The gradient of the loss with respect to the
    mask goes straight through to S. This is edge-popup. With the callback `Rerandomize`, which re-draws entries that
    the mask leaves out, it is IteRand.

    Args:
        sparsity: fraction of each kernel that is removed, in [0, 1). Exactly `round(sparsity * size)` entries are.
        mask: `"per_kernel"` keeps the highest of each kernel. `"global"` ranks the kernels of a model together, at each
            call of `set_sparsity` and event of `SparsityScheduler`; until then each keeps its own. `"N:M"`, such as
            `"2:4"`, keeps at most N of every M neighbouring inputs, at a sparsity of at least `1 - N / M`.
        min_per_channel: each output keeps at least this many inputs, a whole number of at least 0.
        binarize: whether to compute with `gain * sign(W)`, where the gain is the mean magnitude of the kept entries
            (Diffenderfer and Kailkhura, ICLR 2021, section 3).
        score_transform: what is ranked: `"identity"` for the signed scores, as in IteRand, or `"abs"` for their
            magnitudes.
        weight_distribution: distribution of the kernel: `"signed_constant"` (plus or minus `sqrt(2 / fan_in)`, either
            sign with probability 1/2), `"kaiming_uniform"`, `"kaiming_normal"` or `"uniform"` (in -1 to 1).
        weight_scale: factor on the kernel, above 0.
        score_distribution: distribution of the first scores, one of the same names.
        score_scale: factor on the first scores, above 0.

    Raises:
        ValueError: if a parameter is out of its range, or two do not go together.

    Reference:
        Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020, section 3; Chijiwa et al.,
        NeurIPS 2021, section 3.

    Example:

    >>> import iterand_tf
    >>> method = iterand_tf.Supermask(0.7, weight_distribution="kaiming_uniform")
    >>> layer = iterand_tf.SubnetDense(10, method=method)
    >>> layer(keras.ops.ones((2, 20))).shape
    TensorShape([2, 10])
    """

    trains_kernel: ClassVar[bool] = False
    has_scores: ClassVar[bool] = True

    binarize: bool = option(
        False, "compute with the signs of the kept entries, times one gain a kernel: their mean magnitude"
    )
    score_transform: str = option(
        "identity",
        "rank entries by their signed scores (identity) or by the scores' magnitudes (abs)",
        choices=tuple(_TRANSFORMS),
    )
    weight_distribution: str = option(
        "signed_constant",
        "draw the frozen kernels, or the first ones with other methods, from this distribution; pruning takes "
        "kaiming_uniform in place of signed_constant",
        choices=distributions.NAMES,
    )
    weight_scale: float = option(1.0, "multiply the frozen kernels by this factor", above=0)
    score_distribution: str = option(
        "kaiming_uniform", "draw the first scores from this distribution", choices=distributions.NAMES
    )
    score_scale: float = option(1.0, "multiply the first scores by this factor", above=0)

    def first_kernel(self, shape, fan_in, seed):
        return distributions.sample(self.weight_distribution, shape, seed, self.weight_scale, fan_in)

    def first_scores(self, shape, fan_in, seed):
        return distributions.sample(self.score_distribution, shape, seed, self.score_scale, fan_in)

    def ranked(self, kernel, scores):
        return _TRANSFORMS[self.score_transform](scores)

    def values(self, kernel, mask):
        if not self.binarize:
            return kernel
        magnitudes = ops.sum(ops.abs(ops.cast(kernel, "float32")) * mask)
        gain = ops.cast(magnitudes / ops.maximum(ops.sum(mask), 1), kernel.dtype)
        return ops.where(kernel < 0, -gain, gain)

    def magnitude(self, fan_in: int) -> Any:
        """The size of the drawn values, see `distributions.magnitude`."""
        return distributions.magnitude(self.weight_distribution, self.weight_scale, fan_in)
