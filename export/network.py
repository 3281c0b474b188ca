"""What an export writes: a model without masks, its kernels apart from its other weights."""

import dataclasses
import hashlib
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np

from export.draws import find_draws
from export.fold import fold_batch_normalization
from export.pack import PackedKernel, encode, encode_drawn, round_values
from iterand_tf.cloning import CannotCloneError, is_graph
from iterand_tf.conversion import bake, can_bake
from iterand_tf.layers import SubnetKernel, built_subnet_layers
from iterand_tf.layers.masked_variable import reading_as

# The types whose values float32 holds.
_KERNEL_DTYPES = ("float32", "bfloat16", "float16")
# The operations that draw kernels again take so much of a SavedModel.
_BYTES_TO_DRAW = 8_000


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the network; its `values` have pruned entries at zero.

    When the network is served the output channels (last axis) are multiplied by `scale`. `source` is the kernel of a
    Subnet layer that the values are the effective ones of.
    """

    variable: keras.Variable
    values: np.ndarray
    scale: np.ndarray | None = None
    source: SubnetKernel | None = None

    @property
    def name(self) -> str:
        """LAYER/kernel, whatever models the layer is nested in."""
        return "/".join(self.variable.path.split("/")[-2:])

    @property
    def served(self) -> np.ndarray:
        """The kernel that the network computes with."""
        return self.values if self.scale is None else self.values * self.scale

    def drawn(self) -> list[PackedKernel]:
        """The kernel packed by the draws that it comes from; empty if they are not known."""
        found = None if self.source is None else find_draws(self.values, self.source)
        return [] if found is None else [encode_drawn(self.values, found)]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model that computes with kernels and other weights that it is given, in any Subnet layers left in it too."""

    model: keras.Model
    kernels: tuple[Kernel, ...]

    @classmethod
    def of(cls, model: keras.Model, fold: bool = True) -> Self:
        """The network of a trained model, which is not changed.

        A functional or Sequential model is baked and its BatchNormalization folded; in one that cannot be cloned the
        Subnet layers stay and are given masked kernels.
        """
        chosen = [kernel for layer in built_subnet_layers(model) for kernel in layer.subnet_kernels]
        wide = [kernel.variable.path for kernel in chosen if kernel.variable.dtype not in _KERNEL_DTYPES]
        if wide:
            raise ValueError(f"export takes kernels of {', '.join(_KERNEL_DTYPES)}. Received: kernels={wide}")
        try:
            baked = bake(model) if can_bake(model) else None
        except CannotCloneError as error:
            baked = None
            warnings.warn(f"{error}; BatchNormalization is not folded in this export", stacklevel=3)
        masked = {id(kernel.variable): _float32(kernel.baked()) for kernel in chosen}
        # A baked kernel is known by its values, whatever became of its layer.
        sources = {_digest(masked[id(kernel.variable)]): kernel for kernel in chosen}
        folded = fold_batch_normalization(baked) if is_graph(baked) and fold else None
        served = model if baked is None else baked if folded is None else folded.model
        kernels = []
        for variable in _kernels_of(served, masked, sources):
            values, scale = masked.get(id(variable)), None
            if folded is not None:
                values, scale = folded.kernels.get(id(variable), (None, None))
            values = _float32(variable) if values is None else values
            kernels.append(Kernel(variable, values, scale, sources.get(_digest(values))))
        return cls(served, tuple(kernels))

    def packed(self, dtype: str, seeded: bool) -> list[PackedKernel]:
        """The kernels packed by values of a type, or if `seeded` by their draws where that is smaller."""
        by_value = [encode(kernel.values, dtype) for kernel in self.kernels]
        if not seeded:
            return by_value
        smallest = [
            min([packed, *kernel.drawn()], key=lambda each: each.num_bytes)
            for kernel, packed in zip(self.kernels, by_value, strict=True)
        ]
        saved = sum(packed.num_bytes for packed in by_value) - sum(packed.num_bytes for packed in smallest)
        return smallest if saved > _BYTES_TO_DRAW else by_value

    def rounded(self, packed: Sequence[PackedKernel]) -> Self:
        """The network with the kernels that come out of packed ones."""
        kernels = (
            dataclasses.replace(kernel, values=round_values(kernel.values, each.dtype))
            for kernel, each in zip(self.kernels, packed, strict=True)
        )
        return dataclasses.replace(self, kernels=tuple(kernels))

    @property
    def other_weights(self) -> list[keras.Variable]:
        """The variables that an answer depends on beside the kernels: no scores, and no counts of draws."""
        without = {id(kernel.variable) for kernel in self.kernels}
        for layer in built_subnet_layers(self.model):
            for kernel in layer.subnet_kernels:
                without |= {id(variable) for variable in kernel.own_variables}
        return [variable for variable in self.model.variables if id(variable) not in without]

    def outputs(self, inputs: Any, kernels: Sequence[Any], other_weights: Sequence[Any]) -> Any:
        """Outputs of a batch for scaled kernels, as the model gives them; fractions are float32."""
        given = {id(kernel.variable): value for kernel, value in zip(self.kernels, kernels, strict=True)}
        given |= {id(variable): value for variable, value in zip(self.other_weights, other_weights, strict=True)}

        def tensor(variable):
            if id(variable) in given:
                return keras.ops.cast(given[id(variable)], variable.dtype)
            # Nothing reads the others.
            return keras.ops.zeros(variable.shape, variable.dtype)

        groups = (self.model.trainable_variables, self.model.non_trainable_variables)
        # Subnet layers that are left compute with the kernels as they are given, without masks.
        chosen = [kernel for layer in built_subnet_layers(self.model) for kernel in layer.subnet_kernels]
        with reading_as({id(kernel.variable): tensor(kernel.variable) for kernel in chosen}):
            outputs, _ = self.model.stateless_call(
                *([tensor(variable) for variable in group] for group in groups),
                inputs,
                **inference_arguments(self.model),
            )
        return keras.tree.map_structure(as_served, outputs)

    def own_outputs(self, inputs: Any) -> Any:
        """`outputs` with the network's own weights."""
        values = [variable.value for variable in self.other_weights]
        return self.outputs(inputs, [kernel.served for kernel in self.kernels], values)


def as_served(output: Any) -> Any:
    """A tensor in the type in which it is served: float32 for fractions, its own for whole numbers."""
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype))
    return keras.ops.cast(output, "float32") if is_float else output


def inference_arguments(model: keras.Model) -> dict[str, bool]:
    """`training=False` for a model whose `call` takes it."""
    parameters = inspect.signature(model.call).parameters.values()
    takes = any(each.name == "training" or each.kind is each.VAR_KEYWORD for each in parameters)
    return {"training": False} if takes else {}


def _kernels_of(model, masked, sources):
    """Variables that are called kernels or embeddings, and those that a Subnet layer chose from under another name."""
    return [
        variable
        for variable in (*model.trainable_variables, *model.non_trainable_variables)
        if variable.dtype in _KERNEL_DTYPES
        and (
            variable.name.endswith(("kernel", "embeddings"))
            or id(variable) in masked
            or _digest(_float32(variable)) in sources
        )
    ]


def _float32(values):
    return np.asarray(values).astype(np.float32)


def _digest(values):
    return values.shape, hashlib.sha256(values.tobytes()).digest()
