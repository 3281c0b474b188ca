"""SubnetDense, the subnetwork form of keras.layers.Dense."""

from typing import Any

import keras

from iterand_tf.layers.single_kernel_subnet import SingleKernelSubnet
from iterand_tf.layers.subnet_options import SubnetOptions


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetDense(SingleKernelSubnet):
    """A dense layer that chooses entries of a frozen random kernel instead of training them.

    The layer computes `activation(inputs @ (kernel * mask) + bias)`. The kernel is random and never trained. Beside
    it the layer has a score for each entry of the kernel, which the optimizer trains; the mask is 1 where the scores
    are highest and 0 elsewhere. Use it in place of `keras.layers.Dense`, with an optimizer whose learning rate suits
    scores (0.1 is a good start for SGD with momentum), and give `model.fit` the callback `Rerandomize` to re-draw
    entries that the mask leaves out.

    Args:
        units: output features, a whole number above 0.
        activation: function of the outputs, or its name in Keras; None for none.
        use_bias: whether to add a trained bias. False by default, unlike in the stock layer: in the method only the
            scores are trained.
        bias_initializer: as in `keras.layers.Dense`.
        bias_regularizer: as in `keras.layers.Dense`.
        activity_regularizer: as in `keras.layers.Dense`.
        bias_constraint: as in `keras.layers.Dense`.
        sparsity: fraction of the kernel that is removed, in [0, 1). Exactly `round(sparsity * size)` entries are.
        method: `"iterand"` chooses from a frozen kernel by trained scores; `"magnitude_pruning"` trains the kernel and
            keeps its largest entries, `"random_pruning"` trains it and keeps random ones.
        mask: `"per_kernel"` keeps the highest scores of the kernel; `"N:M"`, such as `"2:4"`, keeps N of every M
            neighbouring inputs of an output.
        min_per_channel: each output keeps at least so many inputs, a whole number of at least 0.
        binarize: whether to compute with `gain * sign(kernel)`, where the gain is the mean magnitude of the kept
            entries.
        score_transform: what is ranked: `"identity"` for the signed scores, as in IteRand, or `"abs"` for their
            magnitudes.
        weight_distribution: distribution of the kernel: `"signed_constant"` (plus or minus the standard deviation of
            Kaiming's, either sign with probability 1/2), `"kaiming_uniform"`, `"kaiming_normal"` or `"uniform"` (in
            -1 to 1); `iterand_tf.distributions.sample` has the formulas.
        weight_scale: factor on the kernel, above 0.
        score_distribution: distribution of the first scores, one of the same names.
        score_scale: factor on the first scores, above 0.
        seed: whole number of at least 0, or None for one from Python's generator, which
            `keras.utils.set_random_seed` controls. All draws are functions of the seed and the layer's name, so
            layers of one seed and different names differ. Give a `name` too where draws must not depend on how many
            layers the process has named before.
        **kwargs: `name`, `dtype` and `trainable`, as in every Keras layer.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        kernel: the frozen variable of shape `(features, units)`.
        scores: the trained float32 variable of the same shape.
        bias: the trained variable of shape `(units,)`, or None.
        kernel_mask: the mask of the present scores, float32, 1 = kept.
        num_draws: integer variable, 1 for the first kernel and one more for each re-randomization.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 3.

    Example:

    >>> import keras
    >>> from iterand_tf import SubnetDense
    >>> layer = SubnetDense(4, sparsity=0.75, seed=0)
    >>> layer(keras.ops.ones((2, 8))).shape
    TensorShape([2, 4])
    >>> layer.num_weights, layer.num_kept
    (32, 8)
    """

    stock_class = keras.layers.Dense

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = False,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        bias_constraint: Any = None,
        *,
        sparsity: float = SubnetOptions.sparsity,
        method: str = SubnetOptions.method,
        mask: str = SubnetOptions.mask,
        min_per_channel: int = SubnetOptions.min_per_channel,
        binarize: bool = SubnetOptions.binarize,
        score_transform: str = SubnetOptions.score_transform,
        weight_distribution: str = SubnetOptions.weight_distribution,
        weight_scale: float = SubnetOptions.weight_scale,
        score_distribution: str = SubnetOptions.score_distribution,
        score_scale: float = SubnetOptions.score_scale,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            keras.layers.Dense(
                units,
                activation,
                use_bias,
                bias_initializer=bias_initializer,
                bias_regularizer=bias_regularizer,
                activity_regularizer=activity_regularizer,
                bias_constraint=bias_constraint,
                dtype=kwargs.get("dtype"),
            ),
            sparsity=sparsity,
            method=method,
            mask=mask,
            min_per_channel=min_per_channel,
            binarize=binarize,
            score_transform=score_transform,
            weight_distribution=weight_distribution,
            weight_scale=weight_scale,
            score_distribution=score_distribution,
            score_scale=score_scale,
            seed=seed,
            **kwargs,
        )
