"""One frozen kernel of a Subnet layer: how it is drawn, its scores, and the mask between them."""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from iterand_tf import distributions, seeds
from iterand_tf.layers.subnet_options import SCORE_TRANSFORMS, SubnetOptions
from iterand_tf.masks import num_kept, straight_through_mask, topk_mask
from iterand_tf.rerandomization import rerandomize


class SubnetKernel:
    """A frozen kernel, its trained scores, and what is counted about its draws.

    `Subnet` makes one for each kernel of its layer.

    Args:
        name: of the variable, such as `"recurrent_kernel"`.
        shape: of the kernel.
        layer: that computes with it.
        fan_in: inputs that an output sums over, see `fan_in.fan_in`.
        options: how kernel and scores are drawn, and how many entries are kept.
        seed: of all draws of the layer.
        identity: what tells this kernel's draws from those of other kernels of the same seed.

    Attributes:
        variable: the frozen kernel.
        scores: the trained float32 variable of the kernel's shape.
        num_draws: integer variable, how many draws the kernel has entries of: 1 for the first kernel, and one more for
            each re-randomization.
        rerandomized_at: integer variable, the training step after which the newest re-randomization happened.
    """

    variable: keras.Variable
    scores: keras.Variable
    num_draws: keras.Variable
    rerandomized_at: keras.Variable

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        layer: keras.layers.Layer,
        fan_in: int,
        options: SubnetOptions,
        seed: int,
        identity: tuple[int | str, ...],
    ):
        self.name, self.shape, self._layer, self.fan_in = name, shape, layer, fan_in
        self.options, self._seed, self._identity = options, seed, identity

    @property
    def num_weights(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def num_kept(self) -> int:
        """Number of entries that the mask keeps."""
        return num_kept(self.num_weights, self.options.sparsity)

    @property
    def mask(self) -> Any:
        """Float32 tensor of the kernel's shape, 1 = kept, computed from the present scores."""
        return topk_mask(self._ranked_scores(), self.options.sparsity)

    def effective(self) -> Any:
        """The kernel with pruned entries at zero, in its dtype; differentiable in the scores."""
        mask = straight_through_mask(self._ranked_scores(), self.options.sparsity)
        return self.variable * ops.cast(mask, self.variable.dtype)

    def value_for_call(self) -> Any:
        """The effective kernel in the type that its layer computes in."""
        return ops.cast(self.effective(), self._layer.compute_dtype)

    def baked(self) -> Any:
        """`where(mask, kernel, 0)`: the effective kernel without negative zeros, for a stock layer."""
        return ops.where(self.mask == 1, self.variable, ops.zeros_like(self.variable))

    def draw(self, number: int) -> Any:
        """Draw `number` of the kernel, 0 for the first: a float32 tensor, a function of (seed, kernel, number).

        Args:
            number: whole number of at least 0; `num_draws` of them have been made so far.
        """
        options = self.options
        return distributions.sample(
            options.weight_distribution, self.shape, self._seed_for("kernel", number), options.weight_scale, self.fan_in
        )

    def draw_scores(self) -> Any:
        """The first scores."""
        options = self.options
        return distributions.sample(
            options.score_distribution, self.shape, self._seed_for("scores", 0), options.score_scale, self.fan_in
        )

    def rerandomize(self, step: int, rate: float) -> int:
        """Re-draws each pruned entry with probability `rate`; see `Subnet.rerandomize`."""
        number = int(ops.convert_to_numpy(self.num_draws))
        seed = self._seed_for("rerandomize", number)
        fresh_kernel = ops.cast(self.draw(number), self.variable.dtype)
        new_kernel = rerandomize(self.variable, self.mask, fresh_kernel, rate, seed)
        num_changed = int(ops.count_nonzero(new_kernel != self.variable))
        self.variable.assign(new_kernel)
        self.num_draws.assign(number + 1)
        self.rerandomized_at.assign(step)
        return num_changed

    def _ranked_scores(self):
        return SCORE_TRANSFORMS[self.options.score_transform](self.scores)

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
