"""Folds BatchNormalization into the layer before it: y = scale * kernel(x) + shift, one scale and shift a channel."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator

import keras
import numpy as np

from iterand_tf.cloning import clone, is_graph

_FOLDABLE = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)


@dataclasses.dataclass(frozen=True)
class FoldedModel:
    """A model without the BatchNormalization that could be folded: its biases are the shifts.

    `kernels` holds, by the id of a folded kernel's variable, the kernel as it was, and the scale of its output channels
    (last axis), by which the model's kernel is multiplied.
    """

    model: keras.Model
    kernels: dict[int, tuple[np.ndarray, np.ndarray]]


class Folded(keras.layers.Layer):
    """Stands where a BatchNormalization was, and does nothing; keras.layers.Identity takes no mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs


def fold_batch_normalization(model: keras.Model) -> FoldedModel:
    """Folds each BatchNormalization that alone reads a float32 Conv1D to Conv3D or Dense layer without activation.

    The folded model computes the same outputs up to rounding. A BatchNormalization elsewhere, for instance before the
    convolution or after a depthwise one, stays, and the model that is given is not changed.
    """
    pairs = dict(_pairs(model))
    normalizations = set(map(id, pairs.values()))
    kernels: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def folded(layer):
        if id(layer) in normalizations:
            return Folded(name=layer.name, dtype=layer.dtype_policy)
        if layer not in pairs:
            return None
        scale, shift = _scale_and_shift(pairs[layer])
        copy = type(layer).from_config(layer.get_config() | {"use_bias": True})
        copy.build(layer.get_build_config()["input_shape"])
        kernel = np.asarray(layer.kernel)
        copy.kernel.assign(kernel * scale)
        copy.bias.assign(shift + scale * np.asarray(layer.bias) if layer.use_bias else shift)
        kernels[id(copy.kernel)] = kernel, scale
        return copy

    return FoldedModel(clone(model, folded), kernels)


def _pairs(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """(layer, the BatchNormalization to fold into it) of a model and the models in it."""
    models = list(_models(model))
    uses = collections.Counter(id(layer) for each in models for layer in each.layers)
    for each in models:
        layers = {layer.name: layer for layer in each.layers if uses[id(layer)] == 1}
        for name, reader in _only_readers(each):
            if name in layers and reader in layers:
                last = _last_layer(layers[name])
                if uses[id(last)] == 1 and _fits(last, layers[reader]):
                    yield last, layers[reader]


def _last_layer(layer):
    """The layer itself, or of a Sequential, such as padding and a convolution, the layer that gives its output."""
    return _last_layer(layer.layers[-1]) if isinstance(layer, keras.Sequential) and layer.layers else layer


def _models(model):
    """The model and the models in it, as often as they stand there."""
    yield model
    for layer in model.layers:
        if is_graph(layer):
            yield from _models(layer)


def _only_readers(model):
    """(name, reader's name) of each operation that is called once and read once, by an operation called once."""
    if isinstance(model, keras.Sequential):
        yield from itertools.pairwise(layer.name for layer in model.layers)
        return
    operations = model.get_config()["layers"]
    calls = {operation["name"]: len(operation["inbound_nodes"]) for operation in operations}
    # Who calls the model reads its outputs.
    readers: dict[str, list[str | None]] = {name: [None] * model.output_names.count(name) for name in calls}
    for operation in operations:
        for name in _sources(operation["inbound_nodes"]):
            readers[name].append(operation["name"])
    for name, (reader, *others) in ((name, found) for name, found in readers.items() if found):
        if reader is not None and not others and calls[name] == calls[reader] == 1:
            yield name, reader


def _sources(nodes):
    """Names of the operations whose results stand in a part of a functional model's configuration."""
    names = []

    def note(node):
        if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
            names.append(node["config"]["keras_history"][0])

    keras.tree.traverse(note, nodes)
    return names


def _fits(layer, normalization):
    if type(layer) not in _FOLDABLE or type(normalization) is not keras.layers.BatchNormalization:
        return False
    return (
        normalization.axis in (-1, len(normalization.get_build_config()["input_shape"]) - 1)
        and not layer.lora_enabled
        and layer.quantization_mode is None
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == normalization.compute_dtype == "float32"
    )


def _scale_and_shift(normalization):
    """Float32 arrays of shape (channels,), computed in double precision."""
    mean, variance = (
        np.asarray(value, np.float64) for value in (normalization.moving_mean, normalization.moving_variance)
    )
    scale = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * np.asarray(normalization.gamma)
    shift = -mean * scale
    if normalization.center:
        shift = shift + np.asarray(normalization.beta)
    return scale.astype(np.float32), shift.astype(np.float32)
