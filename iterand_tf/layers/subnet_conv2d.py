"""SubnetConv2D, the subnetwork form of keras.layers.Conv2D."""

from typing import Any

import keras

from iterand_tf import checks
from iterand_tf.layers.single_kernel_subnet import SingleKernelSubnet
from iterand_tf.methods import Method


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetConv2D(SingleKernelSubnet):
    """A 2-D convolution that computes with a subnetwork: `activation(convolution(inputs, kernel * mask) + bias)`.

    With the default method, `"supermask"`, the kernel is random and never trained. Next to it the layer has a score for
    each entry of the kernel, which the optimizer trains; the mask is 1 where the scores are highest and 0 elsewhere.
    Use it in place of `keras.layers.Conv2D`, with an optimizer whose learning rate suits scores (0.1 is a good start
    for SGD with momentum), and pass the callback `Rerandomize` to `model.fit` to re-draw entries that the mask leaves
    out.

    Args:
        filters: output channels, a whole number above 0.
        kernel_size: a whole number above 0, or a pair of them, (height, width).
        strides: steps between two windows, a whole number above 0, or a pair of them.
        padding: `"valid"`, `"same"`, or the number of zeros to add on each side before a valid convolution: a whole
            number of at least 0, or a pair of them, (above and below, left and right). The stock layer takes no
            numbers; they pad both sides alike at stride 2, where `"same"` pads one side only.
        use_bias: whether to add a trained bias. False by default, unlike in the stock layer: with a supermask only the
            scores are trained.
        sparsity: fraction of the kernel that is removed, in [0, 1); None for that of the method, 0.5 by default.
        method: `"supermask"`, `"magnitude_pruning"`, `"random_pruning"`, or a method object such as
            `Supermask(weight_distribution="kaiming_uniform")`.
        seed: as in `Subnet`.
        **kwargs: the other arguments of `keras.layers.Conv2D`, by name. Those about the kernel, such as
            `kernel_regularizer`, go with the pruning methods only, which train it. On a CPU,
            `data_format="channels_first"` needs oneDNN (`TF_ENABLE_ONEDNN_OPTS=1` in the environment before TensorFlow
            is imported).

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` with channels first.

    Output shape:
        `(batch, new height, new width, filters)`, or `(batch, filters, new height, new width)`.

    Attributes:
        kernel: the variable of shape `(kernel height, kernel width, channels // groups, filters)`; frozen with a
            supermask.
        scores: the float32 variable of the same shape, or None with magnitude pruning, which ranks the kernel.
        bias: the trained variable of shape `(filters,)`, or None.
        kernel_mask: the mask of the present scores, float32, 1 = kept.
        num_draws: integer variable, 1 for the first kernel and one more for each re-randomization.

    Raises:
        ValueError: if an argument is out of its range or does not go with the method.

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

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str | int | tuple[int, int] = "valid",
        *,
        use_bias: bool = False,
        sparsity: float | None = None,
        method: str | Method = "supermask",
        seed: int | None = None,
        **kwargs: Any,
    ):
        explicit_padding = () if isinstance(padding, str) else _pair_of_padding(padding)
        stock = keras.layers.Conv2D(
            filters, kernel_size, strides, "valid" if explicit_padding else padding, use_bias=use_bias, **kwargs
        )
        layer = stock
        if explicit_padding:
            zeros = keras.layers.ZeroPadding2D(explicit_padding, stock.data_format, dtype=stock.dtype_policy)
            layer = keras.Sequential([zeros, stock], name=stock.name, trainable=stock.trainable)
            layer.dtype_policy = stock.dtype_policy
        own = {name: kwargs[name] for name in ("name", "trainable") if name in kwargs}
        super().__init__(stock, layer, kwargs, sparsity, method, seed, **own)
        self._stock_config["padding"] = explicit_padding or stock.padding


def _pair_of_padding(padding: Any) -> tuple[int, int]:
    pair = tuple(padding) if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(pair) != 2:
        raise checks.ArgumentError("padding", "'valid', 'same', a whole number or a pair of them", padding)
    height, width = (checks.whole_number("padding", size, minimum=0) for size in pair)
    return height, width
