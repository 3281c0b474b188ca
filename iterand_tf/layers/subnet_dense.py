"""SubnetDense, the subnetwork form of keras.layers.Dense."""

from typing import Any

import keras

from iterand_tf.layers.single_kernel_subnet import SingleKernelSubnet
from iterand_tf.methods import Method


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetDense(SingleKernelSubnet):
    """A dense layer that computes with a subnetwork: `activation(inputs @ (kernel * mask) + bias)`.

    With the default method, `"supermask"`, the kernel is random and never trained. Next to it the layer has a score for
    each entry of the kernel, which the optimizer trains; the mask is 1 where the scores are highest and 0 elsewhere.
    Use it in place of `keras.layers.Dense`, with an optimizer whose learning rate suits scores (0.1 is a good start for
    SGD with momentum), and pass the callback `Rerandomize` to `model.fit` to re-draw entries that the mask leaves out.

    Args:
        units: output features, a whole number above 0.
        activation: function of the outputs, or its name in Keras; None for none.
        use_bias: whether to add a trained bias. False by default, unlike in the stock layer: with a supermask only the
            scores are trained.
        sparsity: fraction of the kernel that is removed, in [0, 1); None for that of the method, 0.5 by default.
        method: `"supermask"`, `"magnitude_pruning"`, `"random_pruning"`, or a method object such as
            `Supermask(weight_distribution="kaiming_uniform")`.
        seed: as in `Subnet`.
        **kwargs: the other arguments of `keras.layers.Dense`, by name. Those about the kernel, such as
            `kernel_regularizer`, go with the pruning methods only, which train it.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        kernel: the variable of shape `(features, units)`; frozen with a supermask.
        scores: the float32 variable of the same shape, or None with magnitude pruning, which ranks the kernel.
        bias: the trained variable of shape `(units,)`, or None.
        kernel_mask: the mask of the present scores, float32, 1 = kept.
        num_draws: integer variable, 1 for the first kernel and one more for each re-randomization.

    Raises:
        ValueError: if an argument is out of its range or does not go with the method.

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

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = False,
        *,
        sparsity: float | None = None,
        method: str | Method = "supermask",
        seed: int | None = None,
        **kwargs: Any,
    ):
        stock = keras.layers.Dense(units, activation, use_bias, **kwargs)
        own = {name: kwargs[name] for name in ("name", "trainable") if name in kwargs}
        super().__init__(stock, stock, kwargs, sparsity, method, seed, **own)
