"""One kernel of a Subnet layer: how it is drawn, what its entries are ranked by, and the mask."""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import keras
from keras import ops

from iterand_tf import distributions, seeds
from iterand_tf.layers.subnet_options import KERNEL_METHODS, SCORE_TRANSFORMS, SubnetOptions
from iterand_tf.masks import mask_of_largest, nm_mask, num_kept, parse_nm, protect_largest, straight_through
from iterand_tf.rerandomization import Replacement, rerandomize


class MaskGroup(Protocol):
    """Kernels that share one threshold, see `global_masks.GlobalMasks`."""

    def mask_of(self, kernel: "SubnetKernel") -> Any: ...


class SubnetKernel:
    """A kernel, what its entries are ranked by, and what is counted about its draws.

    `Subnet` makes one for each kernel of its layer. With the method iterand the kernel is frozen and ranked by trained
    scores. With magnitude_pruning it is trained and ranked by its own magnitudes, with random_pruning by frozen random
    scores.

    Args:
        name: of the variable, such as `"recurrent_kernel"`.
        shape: of the kernel.
        layer: that computes with it.
        fan_in: inputs that an output sums over, see `fan_in.fan_in`.
        reduction_axes: on which these inputs stand, see `fan_in.reduction_axes`.
        options: how kernel and scores are drawn, and which entries are kept.
        seed: of all draws of the layer.
        identity: what tells this kernel's draws from those of other kernels of the same seed.

    Attributes:
        variable: the kernel.
        scores: the float32 variable of the kernel's shape, or None where the kernel itself is ranked.
        kept: integer variable, how many entries the mask keeps.
        num_draws: integer variable, how many draws the kernel has entries of: 1 for the first kernel, and one more for
            each re-randomization.
        rerandomized_at: integer variable, the training step after which the newest re-randomization happened.
        group: of kernels that are ranked together, or None.

    Raises:
        ValueError: if the mask does not fit the kernel.
    """

    variable: keras.Variable
    scores: keras.Variable | None = None
    kept: keras.Variable
    num_draws: keras.Variable
    rerandomized_at: keras.Variable

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        layer: keras.layers.Layer,
        fan_in: int,
        reduction_axes: tuple[int, ...],
        options: SubnetOptions,
        seed: int,
        identity: tuple[int | str, ...],
    ):
        self.name, self.shape, self._layer, self.fan_in = name, shape, layer, fan_in
        self._reduction_axes, self._seed, self._identity = reduction_axes, seed, identity
        self.group: MaskGroup | None = None
        self._nm = parse_nm(options.mask)
        self._num_inputs = math.prod(shape[axis] for axis in reduction_axes)
        if self._nm and self._num_inputs % self._nm[1]:
            raise ValueError(
                f"mask={options.mask} needs kernels whose inputs {self._nm[1]} divides, and {layer.name} has "
                f"{self._num_inputs}; leave that layer out. Received: kernel shape={shape}"
            )
        self._check_kept(options)
        self.options = options

    @property
    def num_weights(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def num_kept(self) -> int:
        """Number of entries that the mask keeps now."""
        if self.group is not None:
            return int(ops.convert_to_numpy(self.mask).sum())
        return int(ops.convert_to_numpy(self.kept))

    @property
    def is_frozen(self) -> bool:
        """Whether the kernel is chosen from and re-drawn, rather than trained."""
        return self.options.method not in KERNEL_METHODS

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The variables beside the kernel that no output depends on once the mask is permanent."""
        counts = [self.kept, self.num_draws, self.rerandomized_at]
        return counts if self.scores is None else [self.scores, *counts]

    @property
    def mask(self) -> Any:
        """Float32 tensor of the kernel's shape, 1 = kept, computed from the present scores; a constant to gradients."""
        if self.group is not None:
            return self.group.mask_of(self)
        if self._nm:
            return nm_mask(self.ranked_scores(), *self._nm, self._reduction_axes)
        return mask_of_largest(self.ranked_scores(), self.kept)

    def ranked_scores(self) -> Any:
        """Float32 tensor of what the mask ranks; a constant to gradients."""
        scores = ops.abs(ops.cast(self.variable, "float32")) if self.scores is None else self._transformed_scores()
        scores = ops.stop_gradient(scores)
        if self.options.min_per_channel:
            scores = protect_largest(scores, self.options.min_per_channel, self._reduction_axes)
        return scores

    def effective(self) -> Any:
        """The kernel with pruned entries at zero, in its dtype; differentiable in what is trained of it."""
        mask = self.mask
        values = self._values(mask)
        if self.is_frozen:
            mask = straight_through(self._transformed_scores(), mask)
        return values * ops.cast(mask, self.variable.dtype)

    def value_for_call(self) -> Any:
        """The effective kernel in the type that its layer computes in."""
        return ops.cast(self.effective(), self._layer.compute_dtype)

    def baked(self) -> Any:
        """The effective kernel without negative zeros, for a stock layer."""
        mask = self.mask
        values = self._values(mask)
        return ops.where(mask == 1, values, ops.zeros_like(values))

    def draw(self, number: int) -> Any:
        """Draw `number` of the kernel, 0 for the first: a float32 tensor, a function of (seed, kernel, number).

        Args:
            number: whole number of at least 0; `num_draws` of them have been made so far.
        """
        options = self.options
        return distributions.sample(
            options.weight_distribution, self.shape, self.seed_of_draw(number), options.weight_scale, self.fan_in
        )

    def seed_of_draw(self, number: int) -> int:
        """The seed that draw `number` is sampled with, see `distributions.sample`."""
        return self._seed_for("kernel", number)

    @property
    def magnitude(self) -> float:
        """The size of the draws' values, see `distributions.magnitude`."""
        return distributions.magnitude(self.options.weight_distribution, self.options.weight_scale, self.fan_in)

    def draw_scores(self) -> Any:
        """The first scores."""
        options = self.options
        return distributions.sample(
            options.score_distribution, self.shape, self._seed_for("scores", 0), options.score_scale, self.fan_in
        )

    def rerandomize(self, step: int, rate: float, replacement: Replacement) -> int:
        """Re-draws pruned entries; see `Subnet.rerandomize`."""
        number = int(ops.convert_to_numpy(self.num_draws))
        seed = self._seed_for("rerandomize", number)
        fresh_kernel = ops.cast(self.draw(number), self.variable.dtype)
        kernel, mask = ops.convert_to_tensor(self.variable), self.mask
        values = replacement(kernel, mask, fresh_kernel, self._seed_for("replacement", number))
        new_kernel = rerandomize(kernel, mask, values, rate, seed)
        num_changed = int(ops.count_nonzero(new_kernel != kernel))
        self.variable.assign(new_kernel)
        self.num_draws.assign(number + 1)
        self.rerandomized_at.assign(step)
        return num_changed

    def set_options(self, options: SubnetOptions) -> None:
        """Takes another sparsity, without a new trace of the functions that compute with the kernel."""
        self._check_kept(options)
        self.options = options
        self.kept.assign(num_kept(self.num_weights, options.sparsity))

    def _transformed_scores(self):
        return SCORE_TRANSFORMS[self.options.score_transform](ops.convert_to_tensor(self.scores))

    def _values(self, mask):
        """The kernel, or where it is binarized its signs times the mean magnitude of its kept entries."""
        kernel = ops.convert_to_tensor(self.variable)
        if not self.options.binarize:
            return kernel
        magnitudes = ops.sum(ops.abs(ops.cast(kernel, "float32")) * mask)
        gain = ops.cast(magnitudes / ops.maximum(ops.sum(mask), 1), kernel.dtype)
        return ops.where(kernel < 0, -gain, gain)

    def _check_kept(self, options):
        least, kept = options.min_per_channel, num_kept(self.num_weights, options.sparsity)
        if least > self._num_inputs or least * (self.num_weights // max(self._num_inputs, 1)) > kept:
            raise ValueError(
                f"min_per_channel={least} keeps more than a sparsity of {options.sparsity} leaves of the kernel of "
                f"{self._layer.name}; lower one of them. Received: kernel shape={self.shape}"
            )

    def _seed_for(self, purpose, number):
        return seeds.fold(self._seed, *self._identity, purpose, number)


# Replicas of a distribution strategy are traced in threads of their own, and in turns.
_given = threading.local()


@contextlib.contextmanager
def given_values(values: dict[int, Any]) -> Iterator[None]:
    """Within, replaceable variables have these values, by their id; others have their own.

    Args:
        values: tensors by id of the variable.
    """
    before = getattr(_given, "values", {})
    _given.values = before | values
    try:
        yield
    finally:
        _given.values = before


def make_replaceable(variable: keras.Variable) -> keras.Variable:
    """Lets `given_values` replace a variable's value, for whoever reads it.

    A layer reads its kernel from an attribute of its own. So that any layer computes with the effective kernel, and
    saving still sees the kernel itself, the variable's value depends on whether a Subnet is calling the layer.
    """
    variable.__class__ = _replaceable(type(variable))  # type: ignore[arg-type]
    return variable


@functools.cache
def _replaceable(base: Any) -> Any:
    return type("ReplaceableVariable", (_Replaceable, base), {})


class _Replaceable:
    @property
    def value(self):
        given = _given_value(self)
        return super().value if given is None else given  # type: ignore[misc]

    @property
    def dtype(self):
        given = _given_value(self)
        dtype = super().dtype if given is None else given.dtype  # type: ignore[misc]
        return keras.backend.standardize_dtype(dtype)


def _given_value(variable):
    return getattr(_given, "values", {}).get(id(variable))
