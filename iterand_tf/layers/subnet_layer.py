"""The base of all Subnet layers: a frozen random kernel, trainable scores, and the mask between them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import keras
from keras import ops

from iterand_tf import distributions, seeds
from iterand_tf.masks import check_sparsity, num_kept, straight_through_mask, topk_mask
from iterand_tf.rerandomization import redrawn_entries, rerandomize

SCORE_TRANSFORMS = {"identity": lambda scores: scores, "abs": ops.abs}


class SubnetLayer(keras.layers.Layer):
    """A layer that chooses entries of a frozen random kernel instead of training them.

    The forward pass uses `kernel * mask`, where the mask keeps the `size - round(sparsity * size)` largest scores;
    the gradient with respect to the mask goes straight through to the scores (Ramanujan et al., CVPR 2020,
    section 3; Chijiwa et al., NeurIPS 2021, section 3). A subclass names its stock layer in `dense_class`, calls
    `add_kernel` in `build`, and uses `effective_kernel()` in `call`.

    Args:
        sparsity: fraction of the kernel that is removed, in [0, 1).
        score_transform: what is ranked: `"identity"` (signed scores, IteRand) or `"abs"` (hidden-networks).
        weight_distribution: distribution of the kernel, one of `iterand_tf.distributions.NAMES`.
        weight_scale: factor on the kernel, above 0.
        score_distribution: distribution of the first scores, one of `iterand_tf.distributions.NAMES`.
        score_scale: factor on the first scores, above 0.
        seed: whole number of at least 0. Every draw is a function of the seed, the layer's name and the step, so
            layers of one seed differ; give a `name` too for draws that do not depend on how many layers the process
            has named before. None takes a seed from Python's generator (see `keras.utils.set_random_seed`) and keeps
            it in the config.
        activation, use_bias, bias_initializer, bias_regularizer, bias_constraint, activity_regularizer: as in the
            stock layer, except that `use_bias` is False unless asked for; a bias is trained as usual.
        **kwargs: `name`, `dtype` and `trainable`, as in every Keras layer.

    Attributes:
        kernel: frozen variable; never autocast.
        scores: trainable float32 variable of the kernel's shape, also under mixed precision.
        bias: trainable variable, or None.

    Raises:
        ValueError: if an argument is out of range.
    """

    dense_class: ClassVar[type[keras.layers.Layer]]

    def __init__(
        self,
        *,
        sparsity: float = 0.5,
        score_transform: str = "identity",
        weight_distribution: str = "signed_constant",
        weight_scale: float = 1.0,
        score_distribution: str = "kaiming_uniform",
        score_scale: float = 1.0,
        seed: int | None = None,
        activation: Any = None,
        use_bias: bool = False,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if score_transform not in SCORE_TRANSFORMS:
            raise ValueError(
                f"score_transform must be one of {', '.join(SCORE_TRANSFORMS)}. Received: {score_transform=}"
            )
        self.sparsity = check_sparsity(sparsity)
        self.score_transform = score_transform
        self.weight_distribution = distributions.check_name(weight_distribution)
        self.weight_scale = distributions.check_scale(weight_scale)
        self.score_distribution = distributions.check_name(score_distribution)
        self.score_scale = distributions.check_scale(score_scale)
        self.seed = seeds.make_seed(seed)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.bias = None

    def add_kernel(self, shape: Sequence[int]) -> None:
        """Creates `kernel`, `scores` and, if `use_bias`, `bias` with one entry per output (last) channel."""
        shape = tuple(shape)
        if None in shape:
            raise ValueError(f"the number of input features must be known. Received: kernel shape={shape}")

        def initial_kernel(shape, dtype=None):
            return ops.cast(self._draw_kernel(shape, step=0), dtype)

        def initial_scores(shape, dtype=None):
            return distributions.sample(self.score_distribution, shape, self._seed_for("scores"), self.score_scale)

        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=initial_kernel, trainable=False, autocast=False
        )
        self.scores = self.add_weight(
            name="scores", shape=shape, initializer=initial_scores, dtype="float32", autocast=False
        )
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
        """Re-draws each pruned kernel entry with probability `rate`; returns how many were re-drawn.

        The draw is a function of (seed, layer name, step), so repeating it at one step changes nothing more. Call
        it between steps, never inside `call`.

        Args:
            step: the training step after which this happens, `optimizer.iterations`.
            rate: probability in [0, 1].
        """
        mask, seed = self.kernel_mask, self._seed_for("rerandomize", step)
        fresh_kernel = ops.cast(self._draw_kernel(self.kernel.shape, step), self.kernel.dtype)
        self.kernel.assign(rerandomize(self.kernel, mask, fresh_kernel, rate, seed))
        return int(ops.sum(ops.cast(redrawn_entries(mask, rate, seed), "int32")))

    @classmethod
    def from_dense(cls, layer: keras.layers.Layer, **subnet_arguments: Any) -> Self:
        """A Subnet layer with the configuration of a stock layer, name included.

        The kernel is drawn anew: values are not copied, and arguments about training the kernel
        (`kernel_initializer`, `kernel_regularizer`, `kernel_constraint`) have no meaning here and are dropped.

        Args:
            layer: an instance of `dense_class`.
            **subnet_arguments: arguments of this class; they win over those of `layer`.

        Raises:
            TypeError: if `layer` is of another class.
        """
        if not isinstance(layer, cls.dense_class):
            raise TypeError(f"{cls.__name__}.from_dense takes a {cls.dense_class.__name__}. Received: {layer=}")
        config = {name: value for name, value in layer.get_config().items() if name not in _KERNEL_TRAINING}
        return cls.from_config(config | subnet_arguments)

    def to_dense(self) -> keras.layers.Layer:
        """A built stock layer of the same name and dtype policy that computes the same outputs.

        Raises:
            ValueError: if this layer has not been built.
        """
        self._check_built()
        layer = self.dense_class.from_config(self._dense_config())
        self._copy_weights_to(layer)
        return layer

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "sparsity": self.sparsity,
            "score_transform": self.score_transform,
            "weight_distribution": self.weight_distribution,
            "weight_scale": self.weight_scale,
            "score_distribution": self.score_distribution,
            "score_scale": self.score_scale,
            "seed": self.seed,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
        }

    def _dense_config(self) -> dict[str, Any]:
        """The stock layer's part of the config."""
        return {name: value for name, value in self.get_config().items() if name not in _SUBNET_ARGUMENTS}

    def _copy_weights_to(self, layer: keras.layers.Layer) -> None:
        """Builds a stock layer and gives it this layer's baked kernel and bias."""
        layer.build(self.get_build_config()["input_shape"])
        layer.kernel.assign(self.baked_kernel())
        if self.use_bias:
            layer.bias.assign(self.bias)

    def _check_built(self) -> None:
        if not self.built:
            raise ValueError(f"call the layer {self.name} on an input, or build it, before this")

    def _ranked_scores(self):
        return SCORE_TRANSFORMS[self.score_transform](self.scores)

    def _draw_kernel(self, shape, step):
        return distributions.sample(self.weight_distribution, shape, self._seed_for("kernel", step), self.weight_scale)

    def _seed_for(self, purpose, step=0):
        return seeds.fold(self.seed, self.name, purpose, step)

    def _finish(self, outputs):
        """Adds the bias to `outputs`, channels last, and applies the activation."""
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)


_KERNEL_TRAINING = (
    "kernel_initializer",
    "kernel_regularizer",
    "kernel_constraint",
    "lora_rank",
    "lora_alpha",
    "quantization_config",
)
_SUBNET_ARGUMENTS = (
    "sparsity",
    "score_transform",
    "weight_distribution",
    "weight_scale",
    "score_distribution",
    "score_scale",
    "seed",
)


def subnet_layers(model: keras.layers.Layer) -> Iterator[SubnetLayer]:
    """All Subnet layers of a model or layer, nested ones included, each once, in the order of creation in the tree.

    >>> import iterand_tf
    >>> model = keras.Sequential([keras.Sequential([iterand_tf.SubnetDense(2)]), iterand_tf.SubnetDense(1)])
    >>> len(list(subnet_layers(model)))
    2
    """
    return (layer for layer in model._flatten_layers() if isinstance(layer, SubnetLayer))
