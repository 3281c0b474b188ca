"""The part that SubnetDense and SubnetConv2D share: Subnets of one kernel with the signature of their stock layer."""

from typing import Any

import keras

from iterand_tf.layers.old_files import refuse_old_config
from iterand_tf.layers.subnet import Subnet
from iterand_tf.layers.subnet_kernel import SubnetKernel
from iterand_tf.methods import Method, resolve

# Arguments of stock layers that concern training the kernel, and those that concern another kernel than the float one.
_KERNEL_TRAINING = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_OTHER_KERNELS = ("lora_rank", "lora_alpha", "quantization_config")


class SingleKernelSubnet(Subnet):
    """A `Subnet` of a layer with one kernel, which takes the arguments of that layer itself.

    Args:
        layer: what computes, where that is not the stock layer alone.
        given: the names of the stock layer's arguments that were passed by name.
    """

    def __init__(
        self,
        stock: keras.layers.Layer,
        layer: keras.layers.Layer,
        given: dict[str, Any],
        sparsity: float | None,
        method: str | Method,
        seed: int | None,
        **kwargs: Any,
    ):
        method = resolve(method, sparsity)
        refused = _OTHER_KERNELS if method.trains_kernel else (*_KERNEL_TRAINING, *_OTHER_KERNELS)
        for name in refused:
            if given.get(name) is not None:
                raise ValueError(
                    f"{name} does not go with {type(method).__name__}; leave it out. Received: {name}={given[name]!r}"
                )
        super().__init__(layer, method=method, seed=seed, **kwargs)
        self._stock_config = {name: value for name, value in stock.get_config().items() if name not in refused}

    @property
    def kernel(self) -> keras.Variable:
        """The variable of all entries, kept and pruned."""
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
        """The kernel with pruned entries at zero, in the kernel's dtype; differentiable in what is trained of it."""
        return self._kernel.effective()

    def __dir__(self) -> list[str]:
        # Keras looks at every attribute when it saves or loads, and a mask is compiled and computed to be looked at.
        return [name for name in super().__dir__() if name != "kernel_mask"]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return self._stock_config | {name: config[name] for name in ("name", "trainable", "dtype", "method", "seed")}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SingleKernelSubnet":
        refuse_old_config(config)
        return cls(**config)

    @property
    def _kernel(self) -> SubnetKernel:
        if not self.subnet_kernels:
            raise AttributeError(f"the layer {self.name} has no kernel before it is built")
        return self.subnet_kernels[0]
