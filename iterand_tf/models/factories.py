"""What a model definition builds its layers with: stock Keras layers or Subnet layers."""

import dataclasses
from typing import Any, Protocol

import keras

from iterand_tf import checks, distributions, seeds
from iterand_tf.checks import Options, option
from iterand_tf.layers import SubnetConv2D, SubnetDense
from iterand_tf.masks import GLOBAL
from iterand_tf.methods import Supermask

# Momentum and epsilon of the papers; Keras's defaults differ.
_BATCH_NORMALIZATION = {"momentum": 0.9, "epsilon": 1e-5}
_SUPERMASK = Supermask()


def head_sparsity_option() -> Any:
    """The option of a network, rather than of a layer, that its classifier has a sparsity of its own."""
    return option(None, "remove this fraction of the classifier's kernel instead of --sparsity", minimum=0, below=1)


class LayerFactory(Protocol):
    """Makes the layers that differ between a network of stock layers and its subnetwork form."""

    def conv2d(
        self, filters: int, kernel_size: int, *, name: str, use_bias: bool, **kwargs: Any
    ) -> keras.layers.Layer: ...

    def dense(self, units: int, *, name: str, use_bias: bool) -> keras.layers.Layer: ...

    def head(self, units: int, *, name: str, use_bias: bool) -> keras.layers.Layer: ...

    def batch_normalization(self, name: str) -> keras.layers.Layer: ...


@dataclasses.dataclass(frozen=True)
class SubnetFactory(Options):
    """Makes Subnet layers that choose from frozen random kernels.

    They have no biases, and BatchNormalization neither scale nor center, so that only scores are trained. To prune one
    of the networks, build it of stock layers and pass it to `prune`.

    Args:
        method: the method of all layers.
        head_sparsity: fraction removed from the classifier, or None for that of the method.
        seed: each layer's draws are a function of it and the layer's name.
        synchronized_batch_normalization: whether BatchNormalization takes its statistics over all replicas of a
            distribution strategy.
        batch_normalization_gains: whether BatchNormalization has trained scales and centers all the same.

    Raises:
        ValueError: if an argument is out of its range, the method trains kernels, or the classifier has a sparsity of
            its own where kernels are ranked together.

    Example:

    >>> SubnetFactory(Supermask(0.6)).dense(10, name="hidden", use_bias=True).sparsity
    0.6
    """

    method: Supermask = _SUPERMASK
    head_sparsity: float | None = head_sparsity_option()
    seed: int = option(0, "derive every draw from this number", minimum=0)
    synchronized_batch_normalization: bool = False
    batch_normalization_gains: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.method, Supermask):
            raise checks.ArgumentError("method", "a Supermask; to prune, pass a network of stock layers", self.method)
        if self.method.mask == GLOBAL and self.head_sparsity is not None:
            raise checks.ArgumentError("head_sparsity", f"left out with mask={GLOBAL}", self.head_sparsity)

    def conv2d(self, filters, kernel_size, *, name, use_bias, **kwargs):
        return SubnetConv2D(filters, kernel_size, name=name, method=self.method, seed=self.seed, **kwargs)

    def dense(self, units, *, name, use_bias, sparsity=None):
        return SubnetDense(units, name=name, sparsity=sparsity, method=self.method, seed=self.seed)

    def head(self, units, *, name, use_bias):
        return self.dense(units, name=name, use_bias=use_bias, sparsity=self.head_sparsity)

    def batch_normalization(self, name):
        gains = self.batch_normalization_gains
        return keras.layers.BatchNormalization(
            **_BATCH_NORMALIZATION,
            center=gains,
            scale=gains,
            synchronized=self.synchronized_batch_normalization,
            name=name,
        )


@dataclasses.dataclass(frozen=True)
class StockFactory(Options):
    """Makes stock layers, whose kernels are trained, with first kernels from a distribution of this project.

    Args:
        weight_distribution: of the first kernels, as in `Supermask`.
        weight_scale: of the first kernels, as in `Supermask`.
        seed: each first kernel is a function of it and the layer's name.
        synchronized_batch_normalization: whether BatchNormalization takes its statistics over all replicas of a
            distribution strategy.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> StockFactory().dense(10, name="head", use_bias=True).units
    10
    """

    weight_distribution: str = option(
        "kaiming_uniform", "draw the first kernels from this distribution", choices=distributions.NAMES
    )
    weight_scale: float = option(1.0, "multiply the first kernels by this factor", above=0)
    seed: int = option(0, "derive every draw from this number", minimum=0)
    synchronized_batch_normalization: bool = False

    def conv2d(self, filters, kernel_size, *, name, use_bias, **kwargs):
        initializer = self._initializer(name)
        return keras.layers.Conv2D(
            filters, kernel_size, use_bias=use_bias, kernel_initializer=initializer, name=name, **kwargs
        )

    def dense(self, units, *, name, use_bias):
        return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=self._initializer(name), name=name)

    def head(self, units, *, name, use_bias):
        return self.dense(units, name=name, use_bias=use_bias)

    def batch_normalization(self, name):
        return keras.layers.BatchNormalization(
            **_BATCH_NORMALIZATION, synchronized=self.synchronized_batch_normalization, name=name
        )

    def _initializer(self, name):
        return SampledKernel(self.weight_distribution, self.weight_scale, seeds.fold(self.seed, name))


@keras.saving.register_keras_serializable(package="iterand_tf")
class SampledKernel(keras.initializers.Initializer):
    """Keras initializer that draws from `iterand_tf.distributions.sample`."""

    def __init__(self, distribution: str, scale: float, seed: int):
        self.distribution, self.scale, self.seed = distribution, scale, seed

    def __call__(self, shape, dtype=None):
        kernel = distributions.sample(self.distribution, shape, self.seed, self.scale)
        return keras.ops.cast(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {"distribution": self.distribution, "scale": self.scale, "seed": self.seed}
