"""What a model definition builds its layers with: stock Keras layers or Subnet layers."""

import dataclasses
from typing import Any, Protocol

import keras

from iterand_tf import checks, distributions, seeds
from iterand_tf.checks import Options, option
from iterand_tf.layers import GlobalMasks, SubnetConv2D, SubnetDense
from iterand_tf.layers.subnet_options import KERNEL_METHODS, OPTION_NAMES, SubnetOptions, head_sparsity_option
from iterand_tf.masks import GLOBAL, PER_KERNEL

# Momentum and epsilon of the papers; Keras's defaults differ.
_BATCH_NORMALIZATION = {"momentum": 0.9, "epsilon": 1e-5}


class LayerFactory(Protocol):
    """Makes the layers that differ between a network of stock layers and its subnetwork form."""

    def conv2d(self, filters: int, kernel_size: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def dense(self, units: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def head(self, units: int, *, name: str, **kwargs: Any) -> keras.layers.Layer: ...

    def batch_normalization(self, name: str) -> keras.layers.Layer: ...

    def network(self, inputs: Any, outputs: Any, name: str) -> keras.Model: ...


@dataclasses.dataclass(frozen=True)
class SubnetFactory(SubnetOptions):
    """Makes Subnet layers.

    With the method iterand they have no biases, and BatchNormalization neither scale nor center, so that only scores
    are trained. The pruning methods train kernels, and so biases, scales and centers too.

    Args:
        sparsity: fraction removed from each layer, in [0, 1).
        method: as in `Subnet`.
        mask: as in `Subnet`, or `"global"`: one threshold for the scores of all kernels.
        min_per_channel: as in `Subnet`.
        binarize: as in `Subnet`.
        score_transform: as in `Subnet`.
        weight_distribution: as in `Subnet`.
        weight_scale: as in `Subnet`.
        score_distribution: as in `Subnet`.
        score_scale: as in `Subnet`.
        head_sparsity: fraction removed from the classifier, or None for `sparsity`.
        seed: each layer's draws are a function of it and the layer's name.
        synchronized_batch_normalization: whether BatchNormalization takes its statistics over all replicas of a
            distribution strategy.
        batch_normalization_gains: whether BatchNormalization has trained scales and centers with the method iterand
            too.

    Raises:
        ValueError: if an argument is out of its range, or the classifier has a sparsity of its own under one threshold
            for all.

    Example:

    >>> SubnetFactory(sparsity=0.6).dense(10, name="hidden").sparsity
    0.6
    """

    head_sparsity: float | None = head_sparsity_option()
    seed: int = option(0, "derive every draw from this number", minimum=0)
    synchronized_batch_normalization: bool = False
    batch_normalization_gains: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.mask == GLOBAL and self.head_sparsity is not None:
            raise checks.ArgumentError("head_sparsity", f"left out with mask={GLOBAL}", self.head_sparsity)

    def conv2d(self, filters, kernel_size, *, name, **kwargs):
        return SubnetConv2D(filters, kernel_size, name=name, **self._arguments(kwargs))

    def dense(self, units, *, name, **kwargs):
        return SubnetDense(units, name=name, **self._arguments(kwargs))

    def head(self, units, *, name, **kwargs):
        sparsity = self.sparsity if self.head_sparsity is None else self.head_sparsity
        return SubnetDense(units, name=name, **self._arguments(kwargs) | {"sparsity": sparsity})

    def batch_normalization(self, name):
        gains = self.batch_normalization_gains or self._trains_kernels
        return keras.layers.BatchNormalization(
            **_BATCH_NORMALIZATION,
            center=gains,
            scale=gains,
            synchronized=self.synchronized_batch_normalization,
            name=name,
        )

    def network(self, inputs, outputs, name):
        if self.mask == GLOBAL:
            return GlobalMasks(inputs, outputs, name=name)
        return keras.Model(inputs, outputs, name=name)

    @property
    def _trains_kernels(self):
        return self.method in KERNEL_METHODS

    def _arguments(self, stock):
        """Arguments of a layer: those of the stock layer, but for its bias where only scores are trained, and ours."""
        stock = {key: value for key, value in stock.items() if key != "use_bias" or self._trains_kernels}
        ours = {name: getattr(self, name) for name in (*OPTION_NAMES, "seed")}
        return stock | ours | ({"mask": PER_KERNEL} if self.mask == GLOBAL else {})


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

    def network(self, inputs, outputs, name):
        return keras.Model(inputs, outputs, name=name)

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
