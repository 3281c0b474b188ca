"""The base of all Subnet layers: a frozen random kernel, trainable scores, and the mask between them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import keras
from keras import ops

from iterand_tf import distributions, seeds
from iterand_tf.layers.subnet_options import OPTION_NAMES, SCORE_TRANSFORMS, SubnetOptions
from iterand_tf.layers.walk import all_layers
from iterand_tf.masks import num_kept, straight_through_mask, topk_mask
from iterand_tf.rerandomization import rerandomize

# Arguments of stock layers that concern training or quantizing the kernel.
_KERNEL_TRAINING = (
    "kernel_initializer",
    "kernel_regularizer",
    "kernel_constraint",
    "lora_rank",
    "lora_alpha",
    "quantization_config",
)


class SubnetLayer(keras.layers.Layer):
    """A layer that chooses entries of a frozen random kernel instead of training them.

    The layer computes with `kernel * mask`. The mask is 1 for the `size - round(sparsity * size)` entries with the
    highest scores and 0 elsewhere. In the backward pass the mask counts as the identity, so that the scores receive
    the gradient of the mask, and an optimizer trains them instead of the kernel.

    This is the common part of `SubnetDense` and `SubnetConv2D`. A subclass names its stock layer in `stock_class`,
    calls `add_kernel` in `build`, and computes with `effective_kernel()` in `call`.

    Args:
        stock_arguments: arguments of the stock layer, `name` and `dtype` left out.
        options: how kernel and scores are drawn and how many entries are kept.
        seed: whole number of at least 0, or None for one from Python's generator, which
            `keras.utils.set_random_seed` controls.
        **kwargs: `name`, `dtype` and `trainable`, as in every Keras layer.

    Attributes:
        kernel: the frozen variable; never autocast.
        scores: the trained float32 variable of the kernel's shape, float32 under mixed precision too.
        bias: the trained variable, or None.
        num_draws: integer variable, how many draws the kernel has entries of: 1 for the first kernel, and one more
            for each re-randomization.
        rerandomized_at: integer variable, the training step after which the newest re-randomization happened.

    Raises:
        ArgumentError: if an argument is out of its range; it is a ValueError.

    Reference:

    - Ramanujan et al., CVPR 2020, section 3 (edge-popup).
    - Chijiwa et al., NeurIPS 2021, section 3 (IteRand).
    """

    stock_class: ClassVar[type[keras.layers.Layer]]
    sparsity: float
    score_transform: str
    weight_distribution: str
    weight_scale: float
    score_distribution: str
    score_scale: float

    def __init__(self, stock_arguments: dict[str, Any], options: SubnetOptions, seed: int | None, **kwargs: Any):
        super().__init__(activity_regularizer=stock_arguments["activity_regularizer"], **kwargs)
        for name in OPTION_NAMES:
            setattr(self, name, getattr(options, name))
        self.seed = seeds.make_seed(seed)
        stock = self.stock_class(**stock_arguments, name=self.name, dtype=self.dtype_policy)
        self._stock_config = stock.get_config()
        self.activation = stock.activation
        self.use_bias = stock.use_bias
        self.bias_initializer = stock.bias_initializer
        self.bias_regularizer = stock.bias_regularizer
        self.bias_constraint = stock.bias_constraint
        self.bias = None
        self.supports_masking = stock.supports_masking

    def add_kernel(self, shape: Sequence[int]) -> None:
        """Creates `kernel` and `scores`, and where the layer has one a bias with an entry for each output channel.

        Args:
            shape: the kernel's shape, output channels last.

        Raises:
            ValueError: if a size is unknown.
        """
        shape = tuple(shape)
        if None in shape:
            raise ValueError(f"the number of input features must be known. Received: kernel shape={shape}")

        def initial_kernel(shape, dtype=None):
            return ops.cast(self.draw_kernel(0, shape), dtype)

        def initial_scores(shape, dtype=None):
            return distributions.sample(self.score_distribution, shape, self._seed_for("scores"), self.score_scale)

        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=initial_kernel, trainable=False, autocast=False
        )
        self.scores = self.add_weight(
            name="scores", shape=shape, initializer=initial_scores, dtype="float32", autocast=False
        )
        self.num_draws = self._add_counter("num_draws", 1)
        self.rerandomized_at = self._add_counter("rerandomized_at", 0)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=shape[-1:],
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    @property
    def num_weights(self) -> int:
        """Number of kernel entries."""
        return math.prod(self.kernel.shape)

    @property
    def num_kept(self) -> int:
        """Number of kernel entries that the mask keeps."""
        return num_kept(self.num_weights, self.sparsity)

    @property
    def kernel_mask(self) -> Any:
        """Float32 tensor of the kernel's shape, 1 = kept, computed from the present scores."""
        return topk_mask(self._ranked_scores(), self.sparsity)

    def effective_kernel(self) -> Any:
        """The kernel with pruned entries at zero, in the kernel's dtype; differentiable in the scores."""
        return self.kernel * ops.cast(straight_through_mask(self._ranked_scores(), self.sparsity), self.kernel.dtype)

    def baked_kernel(self) -> Any:
        """`where(mask, kernel, 0)`: the effective kernel without negative zeros, for a stock layer."""
        return ops.where(self.kernel_mask == 1, self.kernel, ops.zeros_like(self.kernel))

    def rerandomize(self, step: int, rate: float) -> int:
        """Re-draws each pruned kernel entry with probability `rate`.

        Every call is a new draw, which `num_draws` counts: draw number n is a function of (seed, layer name, n). Call
        it between steps, never inside `call`. A layer that is not trainable keeps its kernel.

        Args:
            step: the training step after which this happens; kept in `rerandomized_at`.
            rate: probability in [0, 1].

        Returns:
            How many entries have another value than before.
        """
        if not self.trainable:
            return 0
        number = int(ops.convert_to_numpy(self.num_draws))
        seed = self._seed_for("rerandomize", number)
        fresh_kernel = ops.cast(self.draw_kernel(number), self.kernel.dtype)
        new_kernel = rerandomize(self.kernel, self.kernel_mask, fresh_kernel, rate, seed)
        num_changed = int(ops.count_nonzero(new_kernel != self.kernel))
        self.kernel.assign(new_kernel)
        self.num_draws.assign(number + 1)
        self.rerandomized_at.assign(step)
        return num_changed

    def draw_kernel(self, number: int, shape: Sequence[int] | None = None) -> Any:
        """Draw `number` of the kernel, 0 for the first: a float32 tensor, a function of (seed, layer name, number).

        Args:
            number: whole number of at least 0; `num_draws` of them have been made so far.
            shape: of the kernel, where the layer has not been built; else the kernel's.
        """
        shape = tuple(self.kernel.shape) if shape is None else shape
        seed = self._seed_for("kernel", number)
        return distributions.sample(self.weight_distribution, shape, seed, self.weight_scale)

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
        return cls.from_config(_without_kernel_training(layer.get_config()) | arguments)

    def stock_twin(self) -> keras.layers.Layer:
        """The stock layer of the same configuration, name and dtype policy, without weights."""
        return self.stock_class.from_config(self._stock_config)

    def to_stock(self) -> keras.layers.Layer:
        """A built stock layer that computes the same outputs, with `baked_kernel()` as its kernel.

        Raises:
            ValueError: if this layer has not been built.
        """
        if not self.built:
            raise ValueError(f"call the layer on an input, or build it, before this. Received: layer={self.name}")
        twin = self.stock_twin()
        twin.build(self.get_build_config()["input_shape"])
        (kernel,) = (variable for variable in twin.variables if variable.name == "kernel")
        kernel.assign(self.baked_kernel())
        for variable in twin.variables:
            if variable.name == "bias":
                variable.assign(self.bias)
        return twin

    def compute_output_shape(self, input_shape):
        return self.stock_twin().compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.activity_regularizer)
        options = {name: getattr(self, name) for name in OPTION_NAMES}
        stock = _without_kernel_training(self._stock_config)
        return super().get_config() | stock | options | {"seed": self.seed, "activity_regularizer": regularizer}

    def _ranked_scores(self):
        return SCORE_TRANSFORMS[self.score_transform](self.scores)

    def _seed_for(self, purpose, number=0):
        return seeds.fold(self.seed, self.name, purpose, number)

    def _add_counter(self, name, first):
        # Each replica's copy is assigned the same value, between steps.
        return self.add_weight(
            name=name,
            shape=(),
            dtype="int32",
            initializer=lambda shape, dtype=None: ops.full(shape, first, dtype),
            trainable=False,
            autocast=False,
        )


def _without_kernel_training(config):
    return {name: value for name, value in config.items() if name not in _KERNEL_TRAINING}


def subnet_layers(model: keras.layers.Layer) -> Iterator[SubnetLayer]:
    """All Subnet layers of a model or layer, nested ones included, each once, in the model's order.

    Example:

    >>> import iterand_tf
    >>> model = keras.Sequential([keras.Sequential([iterand_tf.SubnetDense(2)]), iterand_tf.SubnetDense(1)])
    >>> len(list(subnet_layers(model)))
    2
    """
    return (layer for layer in all_layers(model) if isinstance(layer, SubnetLayer))


def built_subnet_layers(model: keras.layers.Layer) -> Iterator[SubnetLayer]:
    """Those of `subnet_layers` that have been built: a layer that no call has used has no kernel.

    Example:

    >>> import iterand_tf
    >>> len(list(built_subnet_layers(keras.Sequential([iterand_tf.SubnetDense(2)]))))
    0
    """
    return (layer for layer in subnet_layers(model) if layer.built)
