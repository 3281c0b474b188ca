"""SubnetConv2D, the subnetwork form of keras.layers.Conv2D."""

from typing import Any

import keras

from iterand_tf import checks
from iterand_tf.layers.single_kernel_subnet import SingleKernelSubnet
from iterand_tf.layers.subnet_options import SubnetOptions


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetConv2D(SingleKernelSubnet):
    """A 2-D convolution that chooses entries of a frozen random kernel instead of training them.

    The layer computes `activation(convolution(inputs, kernel * mask) + bias)`. The kernel is random and never
    trained. Beside it the layer has a score for each entry of the kernel, which the optimizer trains; the mask is 1
    where the scores are highest and 0 elsewhere. Use it in place of `keras.layers.Conv2D`, with an optimizer whose
    learning rate suits scores (0.1 is a good start for SGD with momentum), and give `model.fit` the callback
    `Rerandomize` to re-draw entries that the mask leaves out.

    Args:
        filters: output channels, a whole number above 0.
        kernel_size: a whole number above 0, or a pair of them, (height, width).
        strides: steps between two windows, a whole number above 0, or a pair of them.
        padding: `"valid"`, `"same"`, or the number of zeros to add on each side before a valid convolution: a whole
            number of at least 0, or a pair of them, (above and below, left and right). The stock layer takes no
            numbers; they pad both sides alike at stride 2, where `"same"` pads one side only.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's default. On a CPU, channels first
            needs oneDNN (`TF_ENABLE_ONEDNN_OPTS=1` in the environment before TensorFlow is imported).
        dilation_rate: steps between two entries of a window, a whole number above 0, or a pair of them.
        groups: number of groups of channels, each of which sees its own part of the input channels only; it divides
            `filters` and the input channels.
        activation: function of the outputs, or its name in Keras; None for none.
        use_bias: whether to add a trained bias. False by default, unlike in the stock layer: in the method only the
            scores are trained.
        bias_initializer: as in `keras.layers.Conv2D`.
        bias_regularizer: as in `keras.layers.Conv2D`.
        activity_regularizer: as in `keras.layers.Conv2D`.
        bias_constraint: as in `keras.layers.Conv2D`.
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
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with channels first.

    Output shape:
        `(batch, new height, new width, filters)`, or `(batch, filters, new height, new width)`.

    Attributes:
        kernel: the frozen variable of shape `(kernel height, kernel width, channels // groups, filters)`.
        scores: the trained float32 variable of the same shape.
        bias: the trained variable of shape `(filters,)`, or None.
        kernel_mask: the mask of the present scores, float32, 1 = kept.
        num_draws: integer variable, 1 for the first kernel and one more for each re-randomization.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 3.

    Example:

    >>> import keras
    >>> from iterand_tf import SubnetConv2D
    >>> layer = SubnetConv2D(8, 3, strides=2, padding=1, sparsity=0.5, seed=0)
    >>> layer(keras.ops.ones((2, 32, 32, 3))).shape
    TensorShape([2, 16, 16, 8])
    >>> layer.num_weights, layer.num_kept
    (216, 108)
    """

    stock_class = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str | int | tuple[int, int] = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
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
        dtype = kwargs.get("dtype")
        explicit_padding = () if isinstance(padding, str) else _pair_of_padding(padding)
        convolution = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            "valid" if explicit_padding else padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            bias_constraint=bias_constraint,
            dtype=dtype,
        )
        padded = None
        if explicit_padding:
            padded = keras.Sequential(
                [keras.layers.ZeroPadding2D(explicit_padding, data_format, dtype=dtype), convolution]
            )
            padded.dtype_policy = convolution.dtype_policy
        super().__init__(
            convolution,
            padded,
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
        self.filters = convolution.filters
        self.kernel_size = convolution.kernel_size
        self.strides = convolution.strides
        self.padding = explicit_padding or convolution.padding
        self.data_format = convolution.data_format
        self.dilation_rate = convolution.dilation_rate
        self.groups = convolution.groups
        self.activation = convolution.activation
        self.use_bias = convolution.use_bias

    def get_config(self):
        return super().get_config() | {"padding": self.padding}


def _pair_of_padding(padding: Any) -> tuple[int, int]:
    pair = tuple(padding) if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(pair) != 2:
        raise checks.ArgumentError("padding", "'valid', 'same', a whole number or a pair of them", padding)
    height, width = (checks.whole_number("padding", size, minimum=0) for size in pair)
    return height, width
