"""SubnetDense, the subnetwork form of keras.layers.Dense."""

from typing import Any

import keras
from keras import ops

from iterand_tf.layers.subnet_layer import SubnetLayer


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetDense(SubnetLayer):
    """`activation(inputs @ (kernel * mask) + bias)` with a frozen random kernel and trainable scores.

    Source: Chijiwa et al., NeurIPS 2021, section 3. Arguments of `keras.layers.Dense` that concern training the kernel
    are replaced by those of `SubnetLayer`.

    Args:
        units: output features, a whole number above 0.
        **kwargs: the arguments of `SubnetLayer`: `activation`, `use_bias` (False unless asked for), `sparsity`,
            `score_transform`, `weight_distribution`, `weight_scale`, `score_distribution`, `score_scale`, `seed`,
            `name` and so on.

    Input shape: `(batch, ..., features)`. Output shape: `(batch, ..., units)`. Kernel shape: `(features, units)`.

    Raises:
        ValueError: if an argument is out of range.

    >>> layer = SubnetDense(4, sparsity=0.75, seed=0)
    >>> layer(ops.ones((2, 8))).shape
    TensorShape([2, 4])
    >>> layer.num_weights, layer.num_kept
    (32, 8)
    """

    dense_class = keras.layers.Dense

    def __init__(self, units: int, activation: Any = None, use_bias: bool = False, **kwargs: Any):
        super().__init__(activation=activation, use_bias=use_bias, **kwargs)
        self.units = keras.layers.Dense(units, name=self.name).units

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.add_kernel((input_shape[-1], self.units))

    def call(self, inputs):
        kernel = ops.cast(self.effective_kernel(), self.compute_dtype)
        return self._finish(ops.matmul(inputs, kernel))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units}
