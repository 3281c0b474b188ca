"""Copies of functional and Sequential models in which some layers are replaced."""

import contextlib
import tempfile
from collections.abc import Callable, Collection
from typing import Any

import keras

from iterand_tf.errors import first_line
from iterand_tf.layers import Subnet, subnet_layers
from iterand_tf.layers.walk import all_layers, own_variables

# What a subclass of Keras's models may do its own way, and a copy of another class would not.
_STEPS = ("call", "train_step", "test_step", "predict_step", "compute_loss", "compile", "fit")


# Attributes in which Keras notes how a model was built, compiled and trained.
_OF_KERAS = ("auto_scale_loss", "built", "compiled", "jit_compile", "loss", "run_eagerly", "steps_per_execution",
             "stop_training")  # fmt: skip


class CannotCloneError(ValueError):
    """A layer cannot be made again from its configuration, so models that contain it cannot be copied."""


def is_graph(layer: object) -> bool:
    """Whether it is a functional or Sequential model, whose structure is known."""
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def clone(model: keras.Model, replacement: Callable[[keras.layers.Layer], keras.layers.Layer | None]) -> keras.Model:
    """A copy of a built functional or Sequential model, nested models included; or CannotCloneError.

    `replacement` gives what stands for a layer, which the caller gives its weights, or None for a copy of the layer
    with its weights.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.ReLU()])
    >>> copy = clone(model, lambda layer: keras.layers.Identity() if isinstance(layer, keras.layers.ReLU) else None)
    >>> [type(layer).__name__ for layer in copy.layers]
    ['Dense', 'Identity']
    """
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copied(layer):
        copy = replacement(layer)
        if copy is not None:
            return copy
        copy = copy_of(layer)
        # Other nodes are operations such as x * 2, which have no weights.
        if isinstance(layer, keras.layers.Layer):
            copies.append((layer, copy))
        return copy

    with _not_compiled(model):
        result = keras.models.clone_model(model, clone_function=copied, recursive=True)
    for layer, copy in copies:
        copy_weights(layer, copy)
    return _of_class(result, model)


def _of_class(copy, model):
    """The copy as an object of the model's class, which Keras keeps where its constructor takes inputs and outputs."""
    ours, theirs = type(copy), type(model)
    if ours is theirs or (keras.Sequential in (ours, theirs.__base__) and theirs.__init__ is keras.Sequential.__init__):
        copy.__class__ = theirs
        _copy_attributes(model, copy)
        return copy
    own = [name for name in _STEPS if getattr(theirs, name) is not getattr(ours, name)]
    if own:
        raise CannotCloneError(
            f"the model {model.name} has a {own[0]} of its own, and a class whose constructor does not take the inputs "
            f"and outputs of a copy; let it take (inputs, outputs, name). Received: model of class {theirs.__name__}"
        )
    return copy


def copy_of(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """A layer without weights, or operation, made of the configuration with `changes`; or CannotCloneError."""
    try:
        copy = type(layer).from_config(layer.get_config() | changes)
    except Exception as error:
        # get_config and from_config may be the user's own, and fail in their own ways.
        reason = first_line(error).partition(". ")[0][:200]
        raise CannotCloneError(
            f"the layer {layer.name} cannot be made again from its configuration; register its functions and classes "
            "with keras.saving.register_keras_serializable, call keras.config.enable_unsafe_deserialization() if it "
            f"holds a lambda, or give it a get_config that says all: {reason}"
        ) from error
    if isinstance(layer, keras.Model) and copy.dtype_policy != layer.dtype_policy:
        # A model takes the global policy, whatever its configuration says.
        copy.dtype_policy = layer.dtype_policy
    return copy


def copy_weights(source: keras.layers.Layer, target: keras.layers.Layer, but: Collection[int] = ()) -> None:
    """Gives a layer the weights of another one like it, and what else Keras saves of it, such as vocabularies.

    Kernels of Subnet layers inside are copied with zeros where they are pruned. Variables of `target` whose ids are in
    `but` keep their values.
    """
    baked = {id(kernel.variable): kernel.baked() for layer in subnet_layers(source) for kernel in layer.subnet_kernels}
    theirs, ours = ([each for each in all_layers(layer) if not isinstance(each, Subnet)] for layer in (source, target))
    shapes = [
        [tuple(variable.shape) for layer in layers for variable in own_variables(layer)] for layers in (theirs, ours)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the weights of {source.name} are not those that a layer of its configuration makes; give it a get_config "
            f"that says all. Received: shapes={shapes[0]}, and of the new layer {shapes[1]}"
        )
    for old, new in zip(theirs, ours, strict=True):
        if new.trainable != old.trainable:
            # It was frozen after it was made, which no configuration says.
            new.trainable = old.trainable
        for variable, other in zip(own_variables(new), own_variables(old), strict=True):
            if id(variable) not in but:
                variable.assign(baked.get(id(other), other))
        if hasattr(old, "save_assets"):
            with tempfile.TemporaryDirectory() as directory:
                old.save_assets(directory)
                new.load_assets(directory)
        if isinstance(new, keras.layers.Normalization):
            # It computes what it uses from its weights.
            new.finalize_state()


def _copy_attributes(model, copy):
    """Gives the copy what the user has set on a model of a class of their own."""
    for name, value in vars(model).items():
        is_plain = value is None or isinstance(value, bool | int | float | str)
        if is_plain and not name.startswith("_") and name not in _OF_KERAS:
            setattr(copy, name, value)


@contextlib.contextmanager
def _not_compiled(model):
    """Keras would compile the copy too, with a loss and metrics that need not be registered."""
    compiled = [each for each in all_layers(model) if isinstance(each, keras.Model) and each.compiled]
    for each in compiled:
        each.compiled = False
    try:
        yield
    finally:
        for each in compiled:
            each.compiled = True
