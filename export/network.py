"""What an export writes: a model without masks, its kernels apart from its other weights."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np

from export.bake import bake, can_bake
from export.fold import fold_batch_normalization
from export.pack import round_values
from iterand_tf import subnet_layers

_EFFECTIVE_KERNEL = "effective_kernel"  # the method of SubnetLayer


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the network.

    Args:
        variable: of the network's model.
        values: float32, pruned entries at zero.
        scale: by which the output channels (last axis) are multiplied when the network is served; or None.
    """

    variable: keras.Variable
    values: np.ndarray
    scale: np.ndarray | None = None

    @property
    def name(self) -> str:
        """LAYER/kernel, whatever models the layer is nested in."""
        return "/".join(self.variable.path.split("/")[-2:])

    @property
    def served(self) -> np.ndarray:
        """The kernel that the network computes with."""
        return self.values if self.scale is None else self.values * self.scale


@dataclasses.dataclass(frozen=True)
class Network:
    """A model that computes with kernels and other weights that it is given.

    Args:
        model: its Subnet layers, if any are left, take their kernels as they are given.
        kernels: of the Dense, convolution and Subnet layers, float32.
    """

    model: keras.Model
    kernels: tuple[Kernel, ...]

    @classmethod
    def of(cls, model: keras.Model, fold: bool = True) -> Self:
        """The network of a trained model, which is not changed.

        A functional or Sequential model is baked and its BatchNormalization folded; in any other the Subnet layers
        stay and are given masked kernels.
        """
        if not can_bake(model):
            masked = {id(layer.kernel): np.asarray(layer.baked_kernel()) for layer in subnet_layers(model)}
            return cls(model, tuple(Kernel(v, masked.get(id(v), np.asarray(v))) for v in _kernels_of(model)))
        baked = bake(model)
        if not fold:
            return cls(baked, tuple(Kernel(variable, np.asarray(variable)) for variable in _kernels_of(baked)))
        folded = fold_batch_normalization(baked)
        kernels = (
            Kernel(v, folded.kernels.get(id(v), np.asarray(v)), folded.scales.get(id(v)))
            for v in _kernels_of(folded.model)
        )
        return cls(folded.model, tuple(kernels))

    def rounded(self, dtype: str) -> Self:
        """The network with the values of its kernels rounded, see `export.pack.round_values`."""
        kernels = (dataclasses.replace(kernel, values=round_values(kernel.values, dtype)) for kernel in self.kernels)
        return dataclasses.replace(self, kernels=tuple(kernels))

    @property
    def other_weights(self) -> list[keras.Variable]:
        """The variables that are neither kernels nor scores."""
        without = {id(kernel.variable) for kernel in self.kernels}
        without |= {id(layer.scores) for layer in subnet_layers(self.model)}
        return [variable for variable in self.model.variables if id(variable) not in without]

    def logits(self, image: Any, kernels: Sequence[Any], other_weights: Sequence[Any]) -> Any:
        """Float32 logits of a batch.

        Args:
            image: a batch of inputs.
            kernels: tensors or variables for `self.kernels`, scaled.
            other_weights: the same for `self.other_weights`.
        """
        given = {id(kernel.variable): value for kernel, value in zip(self.kernels, kernels, strict=True)}
        given |= {id(variable): value for variable, value in zip(self.other_weights, other_weights, strict=True)}

        def tensor(variable):
            if id(variable) in given:
                return keras.ops.convert_to_tensor(given[id(variable)])
            return keras.ops.zeros(variable.shape, variable.dtype)  # scores, which nothing reads

        groups = (self.model.trainable_variables, self.model.non_trainable_variables)
        with _kernels_as_given(self.model):
            outputs, _ = self.model.stateless_call(
                *([tensor(variable) for variable in group] for group in groups), image, training=False
            )
        return keras.ops.cast(outputs, "float32")

    def own_logits(self, image: np.ndarray) -> np.ndarray:
        """`logits` with the network's own weights."""
        values = [variable.value for variable in self.other_weights]
        return np.asarray(self.logits(image, [kernel.served for kernel in self.kernels], values))


def _kernels_of(model):
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    return [variable for variable in variables if variable.name == "kernel" and variable.dtype == "float32"]


@contextlib.contextmanager
def _kernels_as_given(model):
    """Within, Subnet layers compute with their kernel as it is, without a mask."""
    layers = list(subnet_layers(model))
    for layer in layers:
        setattr(layer, _EFFECTIVE_KERNEL, functools.partial(getattr, layer, "kernel"))
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, _EFFECTIVE_KERNEL)
