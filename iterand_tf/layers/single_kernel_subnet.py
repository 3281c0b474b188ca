"""The part that SubnetDense and SubnetConv2D share: Subnets of one kernel with the signature of their stock layer."""

from typing import Any, ClassVar, Self

import keras

from iterand_tf.layers.subnet import Subnet
from iterand_tf.layers.subnet_kernel import SubnetKernel

# Arguments of stock layers that concern training or quantizing the kernel.
_KERNEL_TRAINING = (
    "kernel_initializer",
    "kernel_regularizer",
    "kernel_constraint",
    "lora_rank",
    "lora_alpha",
    "quantization_config",
)


class SingleKernelSubnet(Subnet):
    """A `Subnet` of a layer with one kernel, which takes the arguments of that layer itself.

    Args:
        stock: the stock layer.
        layer: what computes, where that is not the stock layer alone.
        **kwargs: the other arguments of `Subnet`.

    Attributes:
        stock_class: the class of the stock layer.
        kernel: the frozen variable.
        scores: the trained float32 variable of the kernel's shape.
        bias: the trained variable, or None.
    """

    stock_class: ClassVar[type[keras.layers.Layer]]

    def __init__(self, stock: keras.layers.Layer, layer: keras.layers.Layer | None = None, **kwargs: Any):
        super().__init__(layer or stock, **kwargs)
        self._stock_config = stock.get_config()

    @classmethod
    def from_stock(cls, layer: keras.layers.Layer, **arguments: Any) -> Self:
        """A Subnet layer with the configuration of a stock layer, name included.

        The kernel is drawn anew, since the method needs one from its own distribution: values are not copied, and
        arguments about training the kernel, such as `kernel_regularizer`, are dropped.

        Args:
            layer: an instance of `stock_class`.
            **arguments: arguments of this class; they win over those of `layer`.

        Raises:
            TypeError: if `layer` is of another class.
        """
        if not isinstance(layer, cls.stock_class):
            raise TypeError(f"{cls.__name__}.from_stock takes a {cls.stock_class.__name__}. Received: {layer=}")
        return cls(**_without_kernel_training(layer.get_config()) | arguments)

    @property
    def kernel(self) -> keras.Variable:
        """The frozen kernel."""
        return self._kernel.variable

    @property
    def scores(self) -> keras.Variable | None:
        """The scores, or None where the kernel itself is ranked."""
        return self._kernel.scores

    @property
    def bias(self) -> keras.Variable | None:
        """The trained bias, or None."""
        return next((variable for variable in self.layer.variables if variable.name == "bias"), None)

    @property
    def num_weights(self) -> int:
        """Number of kernel entries."""
        return self._kernel.num_weights

    @property
    def num_kept(self) -> int:
        """Number of kernel entries that the mask keeps."""
        return self._kernel.num_kept

    @property
    def num_draws(self) -> keras.Variable:
        """How many draws the kernel has entries of."""
        return self._kernel.num_draws

    @property
    def kernel_mask(self) -> Any:
        """Float32 tensor of the kernel's shape, 1 = kept, computed from the present scores."""
        return self._kernel.mask

    def effective_kernel(self) -> Any:
        """The kernel with pruned entries at zero, in the kernel's dtype; differentiable in the scores."""
        return self._kernel.effective()

    def __dir__(self) -> list[str]:
        # Keras looks at every attribute when it saves or loads, and a mask is compiled and computed to be looked at.
        return [name for name in super().__dir__() if name != "kernel_mask"]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["layer"], config["kernel_names"]
        return _without_kernel_training(self._stock_config) | config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    @property
    def _kernel(self) -> SubnetKernel:
        if not self.subnet_kernels:
            raise AttributeError(f"the layer {self.name} has no kernel before it is built")
        return self.subnet_kernels[0]


def _without_kernel_training(config):
    return {name: value for name, value in config.items() if name not in _KERNEL_TRAINING}
