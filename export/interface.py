"""What a model takes and gives, by name: the inputs and outputs of what is served."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from iterand_tf.cloning import is_graph

IMAGE, OUTPUTS, LOGITS, PROBABILITIES = "image", "outputs", "logits", "probabilities"
HEADS = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}
_SAMPLE_SIZE = 8
# The size that a sample has where the model leaves it open.
_UNKNOWN_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Interface:
    """Names, types and shapes of a model's inputs, and the names of its outputs.

    The names are the model's own: an input's is that of its `keras.Input`, or its key in a dictionary; an output's is
    its key in a dictionary, or in a list that of the layer it comes from. Those without a name of their own are
    numbered, and a single one is `image` or `outputs`.

    Args:
        inputs: type and shape by name, the batch size open. Fractions are float32.
        listed: names of outputs that the model gives in a list.
        head: a key of `HEADS` where the single output is logits of which probabilities are made: `logits` and
            `probabilities` are served in place of `outputs`.
    """

    inputs: dict[str, tf.TensorSpec]
    structure: Any
    listed: tuple[str, ...] = ()
    head: str | None = None

    @classmethod
    def of(cls, model: keras.Model, sample: Any = None, head: str | None = None) -> Self:
        """That of a built model; a subclassed one takes what is like `sample`."""
        listed: list[str | None] = []
        if not is_graph(model):
            taken = keras.tree.map_structure(np.asarray, sample)
        elif isinstance(model, keras.Sequential):
            taken = model.inputs[0]
        else:
            taken = model.input
            operations = {operation.name: operation for operation in model.operations}
            listed = [_own_name(name, operations[name]) for name in model.output_names]
        paths = keras.tree.flatten_with_path(taken)
        names = _numbered([_input_name(path, tensor) for path, tensor in paths], "input", IMAGE)
        if len(set(names)) < len(names):
            raise ValueError(f"give each input of the model a name of its own. Received: inputs={names}")
        inputs = {name: _specification(name, tensor) for name, (_, tensor) in zip(names, paths, strict=True)}
        structure = keras.tree.pack_sequence_as(taken, names)
        return cls(inputs, structure, tuple(_numbered(listed, "output", OUTPUTS)), head)

    def sample(self, given: Any) -> dict[str, np.ndarray]:
        """A batch of inputs by name: what is given if it fits, or random ones for None."""
        if given is None:
            return {name: _random(spec, seed) for seed, (name, spec) in enumerate(self.inputs.items())}
        if isinstance(self.structure, str) and not isinstance(given, Mapping):
            given = {self.structure: given}
        elif not isinstance(given, Mapping):
            given = dict(zip(keras.tree.flatten(self.structure), keras.tree.flatten(given), strict=False))
        if set(given) != set(self.inputs):
            raise ValueError(f"sample must have the inputs {list(self.inputs)}. Received: {list(given)}")
        return {name: _fitting(name, spec, given[name]) for name, spec in self.inputs.items()}

    def structured(self, inputs: Mapping[str, Any]) -> Any:
        """Inputs by name as the model takes them."""
        return keras.tree.map_structure(lambda name: inputs[name], self.structure)

    def named(self, outputs: Any) -> dict[str, Any]:
        """By name the outputs that the model gives."""
        if isinstance(outputs, Mapping):
            by_name = {str(name): output for name, output in outputs.items()}
        elif isinstance(outputs, list | tuple):
            fits = len(outputs) == len(self.listed) == len(set(self.listed))
            names = self.listed if fits else _numbered([None] * len(outputs), "output", OUTPUTS)
            by_name = dict(zip(names, outputs, strict=True))
        else:
            by_name = {OUTPUTS if self.head is None else LOGITS: outputs}
        if not all(hasattr(output, "shape") for output in by_name.values()):
            raise ValueError(
                "export takes a model whose outputs are a tensor, or a list or dictionary of tensors. "
                f"Received: outputs={outputs}"
            )
        if self.head is not None and list(by_name) != [LOGITS]:
            raise ValueError(f"head goes with a model of one output, a tensor. Received: outputs={list(by_name)}")
        return by_name

    def served(self, outputs: Any) -> dict[str, Any]:
        """Outputs by name, and the probabilities that `head` makes of them."""
        by_name = self.named(outputs)
        return by_name if self.head is None else by_name | {PROBABILITIES: HEADS[self.head](by_name[LOGITS])}


def _input_name(path, tensor):
    """The key in a dictionary, or the name that a `keras.Input` was given; None if there is neither."""
    if path and isinstance(path[-1], str):
        return path[-1]
    name = getattr(tensor, "name", None)
    return None if name is None or re.fullmatch(r"(input_layer|keras_tensor)(_\d+)?", name) else name


def _own_name(name, operation):
    """The name of an operation; None if it is the one that Keras gives to any of its class."""
    of_class = re.sub(r"_\d+$", "", name).replace("_", "") == type(operation).__name__.lower()
    return None if of_class else name


def _numbered(names, word, single):
    """The names as TensorFlow takes them: letters, digits and underscores. Without a name: `word` and a number."""
    if len(names) == 1:
        names = [names[0] or single]
    return [re.sub(r"\W", "_", name or f"{word}_{number}", flags=re.ASCII) for number, name in enumerate(names)]


def _specification(name, tensor):
    if str(tensor.dtype) == "string" or getattr(tensor.dtype, "kind", "f") in "USO":
        raise ValueError(f"export takes no inputs of text. Received: input={name}")
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tf.TensorSpec((None, *tensor.shape[1:]), "float32" if "float" in dtype else dtype, name)


def _random(spec, seed):
    shape = (_SAMPLE_SIZE, *(size or _UNKNOWN_SIZE for size in spec.shape[1:]))
    draw = np.random.default_rng(seed)
    dtype = spec.dtype.as_numpy_dtype
    # Zero and one are whole numbers that any model takes.
    return (
        draw.standard_normal(shape).astype(dtype)
        if spec.dtype.is_floating
        else draw.integers(0, 2, shape).astype(dtype)
    )


def _fitting(name, spec, given):
    array = np.asarray(given)
    if not len(array.shape) or not len(array) or not spec.is_compatible_with(tf.TensorSpec(array.shape, spec.dtype)):
        shape = tuple(spec.shape[1:])
        raise ValueError(f"sample must be a batch of inputs of shape {shape}. Received: {name}.shape={array.shape}")
    if not np.can_cast(array.dtype, spec.dtype.as_numpy_dtype, "same_kind"):
        raise ValueError(f"sample must be of type {spec.dtype.name}. Received: {name} of type {array.dtype}")
    return array.astype(spec.dtype.as_numpy_dtype)
