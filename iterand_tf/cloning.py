"""Copies of functional and Sequential models in which some layers are replaced."""

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras

from iterand_tf.errors import first_line
from iterand_tf.layers.walk import all_layers

# What a subclass of Keras's models may do its own way, and a copy of another class would not.
_STEPS = ("call", "train_step", "test_step", "predict_step", "compute_loss", "compile", "fit")


class CannotCloneError(ValueError):
    """A layer cannot be made again from its configuration, so models that contain it cannot be copied."""


def is_graph(layer: object) -> bool:
    """Whether it is a functional or Sequential model, whose structure is known.

    Example:

    >>> is_graph(keras.Sequential()), is_graph(keras.layers.Dense(1))
    (True, False)
    """
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def clone(model: keras.Model, replacement: Callable[[keras.layers.Layer], keras.layers.Layer | None]) -> keras.Model:
    """A copy of a model, nested models included.

    Args:
        model: a built functional or Sequential model; it is not changed.
        replacement: gives what stands for a layer, which the caller gives its weights, or None for a copy of the layer
            with its weights.

    Raises:
        CannotCloneError: if a layer cannot be made again from its configuration.

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
        assign_all(copy, layer.variables)
    return _of_class(result, model)


def _of_class(copy, model):
    """The copy as an object of the model's class, which Keras keeps where its constructor takes inputs and outputs."""
    ours, theirs = type(copy), type(model)
    if ours is theirs or (keras.Sequential in (ours, theirs.__base__) and theirs.__init__ is keras.Sequential.__init__):
        copy.__class__ = theirs
        return copy
    own = [name for name in _STEPS if getattr(theirs, name) is not getattr(ours, name)]
    if own:
        raise CannotCloneError(
            f"the model {model.name} has a {own[0]} of its own, and a class whose constructor does not take the inputs "
            f"and outputs of a copy; let it take (inputs, outputs, name). Received: model of class {theirs.__name__}"
        )
    return copy


def copy_of(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """A layer of the same configuration, without weights.

    Args:
        layer: or an operation of a functional model.
        **changes: entries of the configuration to replace.

    Raises:
        CannotCloneError: if a layer cannot be made again from its configuration.

    Example:

    >>> copy_of(keras.layers.Dense(2), name="other").name
    'other'
    """
    try:
        copy = type(layer).from_config(layer.get_config() | changes)
    except Exception as error:
        # get_config and from_config may be the user's own, and fail in their own ways.
        reason = first_line(error).partition(". ")[0]
        raise CannotCloneError(
            f"the layer {layer.name} cannot be made again from its configuration: {reason}"
        ) from error
    if isinstance(layer, keras.Model) and copy.dtype_policy != layer.dtype_policy:
        # A model takes the global policy, whatever its configuration says.
        copy.dtype_policy = layer.dtype_policy
    return copy


def assign_all(layer: keras.layers.Layer, values: Sequence[Any], but: Collection[int] = ()) -> None:
    """Assigns values to the variables of a layer, in its order.

    Args:
        layer: a built layer.
        values: one for each of its variables.
        but: ids of variables that keep their own values.

    Raises:
        ValueError: if the layer has other variables.

    Example:

    >>> layer = keras.layers.Dense(1)
    >>> layer.build((None, 2))
    >>> assign_all(layer, [[[1.0], [2.0]], [3.0]])
    >>> layer(keras.ops.ones((1, 2))).numpy().tolist()
    [[6.0]]
    """
    shapes = [tuple(keras.ops.shape(value)) for value in values]
    ours = [tuple(variable.shape) for variable in layer.variables]
    if shapes != ours:
        raise ValueError(
            f"the weights of the layer {layer.name} are not those that a layer of its configuration makes; give it a "
            f"get_config that says all. Received: shapes={shapes}, and of the new layer {ours}"
        )
    for variable, value in zip(layer.variables, values, strict=True):
        if id(variable) not in but:
            variable.assign(value)
    for each in all_layers(layer):
        # Preprocessing layers compute what they use from their weights.
        if hasattr(each, "finalize_state"):
            each.finalize_state()


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
