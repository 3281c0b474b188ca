"""Copies of functional and Sequential models in which some layers are replaced."""

from collections.abc import Callable

import keras

from iterand_tf.errors import first_line
from iterand_tf.layers import GlobalMasks


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
        replacement: gives what stands for a layer: None for a copy of it. What comes built, or is of another class,
            keeps its own weights; the rest gets those of the layer.

    Raises:
        CannotCloneError: if a layer cannot be made again from its configuration.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.ReLU()])
    >>> copy = clone(model, lambda layer: keras.layers.Identity() if isinstance(layer, keras.layers.ReLU) else None)
    >>> [type(layer).__name__ for layer in copy.layers]
    ['Dense', 'Identity']
    """
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copy_of(layer):
        copy = replacement(layer)
        if copy is None:
            copy = _copy_without_weights(layer)
        # Other nodes are operations such as x * 2, which have no weights.
        if isinstance(layer, keras.layers.Layer) and not copy.built and type(copy) is type(layer):
            copies.append((layer, copy))
        return copy

    if isinstance(model, GlobalMasks):
        # What its layers become need not be Subnet layers.
        model = keras.Model(model.input, model.output, name=model.name)
    copied = keras.models.clone_model(model, clone_function=copy_of, recursive=True)
    for layer, copy in copies:
        copy.set_weights(layer.get_weights())
        # Preprocessing layers compute what they use from their weights.
        if hasattr(copy, "finalize_state"):
            copy.finalize_state()
    return copied


def _copy_without_weights(layer):
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:
        # get_config and from_config may be the user's own, and fail in their own ways.
        reason = first_line(error).partition(". ")[0]
        raise CannotCloneError(
            f"the layer {layer.name} cannot be made again from its configuration: {reason}"
        ) from error
