"""What a model definition builds its layers with: stock Keras layers or Subnet layers."""

import dataclasses
from typing import Any, Protocol

import keras

from iterand_tf import checks, distributions, seeds
from iterand_tf.checks import Options, option
from iterand_tf.layers import SubnetConv2D, SubnetDense
from iterand_tf.layers.subnet_options import OPTION_NAMES, SubnetOptions, head_sparsity_option

# Momentum and epsilon of the papers; Keras's defaults differ.
_BATCH_NORMALIZATION = {"momentum": 0.9, "epsilon": 1e-5}


class LayerFactory(Protocol):
    """Makes the layers that differ between a network of stock layers and its subnetwork form."""

    def conv2d(self, filters: int, kernel_size: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def dense(self, units: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def head(self, units: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def batch_normalization(self, name: str) -> keras.layers.Layer: ...


@dataclasses.dataclass(frozen=True)
class SubnetFactory(SubnetOptions):
    """Makes Subnet layers: no biases, BatchNormalization without scale and center, so that only scores are trained.

    Args:
        sparsity: fraction removed from each layer, in [0, 1).
        score_transform: as in `SubnetDense`.
        weight_distribution: as in `SubnetDense`.
        weight_scale: as in `SubnetDense`.
        score_distribution: as in `SubnetDense`.
        score_scale: as in `SubnetDense`.
        head_sparsity: fraction removed from the classifier, or None for `sparsity`.
        seed: each layer's draws are a function of it and the layer's name.
        synchronized_batch_normalization: whether BatchNormalization takes its statistics over all replicas of a
            distribution strategy.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> SubnetFactory(sparsity=0.6).dense(10, name="hidden").sparsity
    0.6
    """

    head_sparsity: float | None = head_sparsity_option()
    seed: int = option(0, "derive every draw from this number", minimum=0)
    synchronized_batch_normalization: bool = False

    def conv2d(self, filters, kernel_size, *, name, **kwargs):
        return SubnetConv2D(filters, kernel_size, name=name, **self._arguments(), **_without_bias(kwargs))

    def dense(self, units, *, name, **kwargs):
        return SubnetDense(units, name=name, **self._arguments(), **_without_bias(kwargs))

    def head(self, units, *, name, **kwargs):
        sparsity = self.sparsity if self.head_sparsity is None else self.head_sparsity
        return SubnetDense(units, name=name, **self._arguments() | {"sparsity": sparsity}, **_without_bias(kwargs))

    def batch_normalization(self, name):
        return keras.layers.BatchNormalization(
            **_BATCH_NORMALIZATION,
            center=False,
            scale=False,
            synchronized=self.synchronized_batch_normalization,
            name=name,
        )

    def _arguments(self):
        return {name: getattr(self, name) for name in (*OPTION_NAMES, "seed")}


@dataclasses.dataclass(frozen=True)
class StockFactory(Options):
    """Makes stock layers, whose kernels are trained, with first kernels from a distribution of this project.

    Args:
        weight_distribution: of the first kernels, as in `SubnetDense`.
        weight_scale: of the first kernels, as in `SubnetDense`.
        seed: each first kernel is a function of it and the layer's name.
        synchronized_batch_normalization: whether BatchNormalization takes its statistics over all replicas of a
            distribution strategy.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> StockFactory().dense(10, name="head").units
    10
    """

    weight_distribution: str = option(
        "kaiming_uniform", "draw the first kernels from this distribution", choices=distributions.NAMES
    )
    weight_scale: float = option(1.0, "multiply the first kernels by this factor", above=0)
    seed: int = option(0, "derive every draw from this number", minimum=0)
    synchronized_batch_normalization: bool = False

    def conv2d(self, filters, kernel_size, *, name, **kwargs):
        initializer = self._initializer(name)
        return keras.layers.Conv2D(filters, kernel_size, kernel_initializer=initializer, name=name, **kwargs)

    def dense(self, units, *, name, **kwargs):
        return keras.layers.Dense(units, kernel_initializer=self._initializer(name), name=name, **kwargs)

    def head(self, units, *, name, **kwargs):
        return self.dense(units, name=name, **kwargs)

    def batch_normalization(self, name):
        return keras.layers.BatchNormalization(
            **_BATCH_NORMALIZATION, synchronized=self.synchronized_batch_normalization, name=name
        )

    def _initializer(self, name):
        return SampledKernel(self.weight_distribution, self.weight_scale, seeds.fold(self.seed, name))


@keras.saving.register_keras_serializable(package="iterand_tf")
class SampledKernel(keras.initializers.Initializer):
    """Keras initializer that draws from `iterand_tf.distributions.sample`.

    Args:
        distribution: the argument `name` of `sample`.
        scale: factor on the values, above 0.
        seed: whole number of at least 0, or None for one from Python's generator.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> SampledKernel("signed_constant", 1.0, seed=0)((2, 1)).shape
    TensorShape([2, 1])
    """

    def __init__(self, distribution: str, scale: float, seed: int):
        self.distribution = checks.one_of("distribution", distribution, distributions.NAMES)
        self.scale = checks.number("scale", scale, above=0)
        self.seed = seeds.make_seed(seed)

    def __call__(self, shape, dtype=None):
        kernel = distributions.sample(self.distribution, shape, self.seed, self.scale)
        return keras.ops.cast(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {"distribution": self.distribution, "scale": self.scale, "seed": self.seed}


def _without_bias(kwargs):
    return {name: value for name, value in kwargs.items() if name != "use_bias"}
