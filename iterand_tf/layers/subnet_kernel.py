"""One kernel of a Subnet layer: how it is drawn, what its entries are ranked by, and the mask."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from iterand_tf import seeds
from iterand_tf.layers.fan_in import fan_in, reduction_axes
from iterand_tf.layers.masked_variable import initialize, make_masked
from iterand_tf.masks import mask_of_largest, straight_through
from iterand_tf.methods import Method
from iterand_tf.rerandomization import Replacement, rerandomize


class SubnetKernel:
    """A kernel, what its entries are ranked by, and what is counted about its draws.

    `Subnet` makes one for each kernel of its layer. The variable becomes a masked one; a method that freezes kernels
    draws it anew.

    Args:
        identity: distinguishes this kernel's draws from those of other kernels of the same seed.
        add_weight: makes a weight of the Subnet layer, as `keras.layers.Layer.add_weight` does.

    Attributes:
        scores: the float32 variable of the kernel's shape, or None where the kernel itself is ranked.
        kept: integer variable, how many entries the mask keeps.
        num_draws: integer variable, how many draws the kernel has entries of: 1 for the first kernel, and one more for
            each re-randomization.
        rerandomized_at: integer variable, the training step after which the newest re-randomization happened.
    """

    def __init__(
        self,
        variable: keras.Variable,
        owner: keras.layers.Layer,
        method: Method,
        seed: int,
        identity: tuple[int | str, ...],
        add_weight: Callable[..., keras.Variable],
    ):
        self.variable, self.method = variable, method
        self.name, self.shape = variable.name, tuple(variable.shape)
        self.fan_in = fan_in(owner, self.name, self.shape)
        self._axes = reduction_axes(owner, self.name, self.shape)
        self._owner, self._seed, self._identity = owner, seed, identity
        kept = method.num_kept(self.shape, self._axes, self._owner.name)
        make_masked(variable, self.is_frozen)
        if self.is_frozen:
            initialize(variable, lambda: ops.cast(self.draw(0), variable.dtype))
        self.scores = None
        if method.has_scores:
            self.scores = add_weight("scores", self.shape, self._first_scores, "float32", self.is_frozen)
        self.kept = add_weight("num_kept", (), lambda shape, dtype: ops.full(shape, kept, dtype), "int32", False)
        self.num_draws = add_weight("num_draws", (), "ones", "int32", False)
        self.rerandomized_at = add_weight("rerandomized_at", (), "zeros", "int32", False)

    @property
    def num_weights(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def num_kept(self) -> int:
        """Number of entries that the mask keeps now."""
        fewest, most = self._limits()
        return min(max(int(ops.convert_to_numpy(self.kept)), fewest), most)

    @property
    def is_frozen(self) -> bool:
        """Whether the kernel is chosen from and re-drawn, rather than trained."""
        return not self.method.trains_kernel

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The variables beside the kernel that no output depends on once the mask is permanent."""
        counts = [self.kept, self.num_draws, self.rerandomized_at]
        return counts if self.scores is None else [self.scores, *counts]

    @property
    def mask(self) -> Any:
        """Float32 tensor of the kernel's shape, 1 = kept, computed from the present scores; a constant to gradients."""
        kept = ops.clip(ops.convert_to_tensor(self.kept), *self._limits())
        return mask_of_largest(self.ranked(), kept)

    def ranked(self) -> Any:
        """Float32 tensor of what the mask ranks; a constant to gradients."""
        return self.method.with_pattern(ops.stop_gradient(self._ranked()), self._axes)

    def effective(self) -> Any:
        """The kernel with pruned entries at zero, in its dtype; differentiable in what is trained of it."""
        mask = self.mask
        values = self.method.values(ops.convert_to_tensor(self.variable), mask)
        if self.is_frozen:
            mask = straight_through(self._ranked(), mask)
        return values * ops.cast(mask, self.variable.dtype)

    def value_for_call(self) -> Any:
        """The effective kernel in the type that its layer computes in."""
        return ops.cast(self.effective(), self._owner.compute_dtype)

    def baked(self) -> Any:
        """The effective kernel without negative zeros, for a stock layer."""
        mask = self.mask
        values = self.method.values(ops.convert_to_tensor(self.variable), mask)
        return ops.where(mask == 1, values, ops.zeros_like(values))

    def draw(self, number: int) -> Any:
        """Draw `number` of the kernel, 0 for the first: a float32 tensor, a function of (seed, kernel, number)."""
        return self.method.first_kernel(self.shape, self.fan_in, self.seed_of_draw(number))

    def seed_of_draw(self, number: int) -> int:
        """The seed that draw `number` is sampled with, see `distributions.sample`."""
        return self._seed_for("kernel", number)

    def rerandomize(self, step: int, rate: float, replacement: Replacement) -> int:
        """Re-draws pruned entries; see `Subnet.rerandomize`."""
        number = int(ops.convert_to_numpy(self.num_draws))
        fresh_kernel = ops.cast(self.draw(number), self.variable.dtype)
        kernel, mask = ops.convert_to_tensor(self.variable), self.mask
        values = ops.cast(replacement(kernel, mask, fresh_kernel, self._seed_for("replacement", number)), kernel.dtype)
        new_kernel = rerandomize(kernel, mask, values, rate, self._seed_for("rerandomize", number))
        num_changed = int(ops.count_nonzero(new_kernel != kernel))
        self.variable.assign(new_kernel)
        self.num_draws.assign(number + 1)
        self.rerandomized_at.assign(step)
        return num_changed

    def num_kept_of(self, method: Method) -> int:
        """How many entries a method of another sparsity keeps.

        Raises:
            ValueError: if the kernel cannot keep so many.
        """
        return method.num_kept(self.shape, self._axes, self._owner.name)

    def set_method(self, method: Method) -> None:
        """Takes a method of another sparsity, without a new trace of the functions that compute with the kernel."""
        self.kept.assign(self.num_kept_of(method))
        self.method = method

    def _limits(self):
        return self.method.limits(self.shape, self._axes, self._owner.name)

    def _first_scores(self, shape, dtype):
        return self.method.first_scores(shape, self.fan_in, self._seed_for("scores", 0))

    def _ranked(self):
        scores = None if self.scores is None else ops.convert_to_tensor(self.scores)
        return self.method.ranked(ops.convert_to_tensor(self.variable), scores)

    def _seed_for(self, purpose, number):
        return seeds.fold(self._seed, *self._identity, purpose, number)
