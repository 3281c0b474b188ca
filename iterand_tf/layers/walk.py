"""A walk through a model's layers, nested ones included."""

from collections.abc import Iterator
from typing import Any

import keras


def all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer itself and all layers inside it, each once, in the model's order.

    The layers of a model are those of `model.layers`. Those of any other layer, such as a wrapper or a layer of your
    own, are found in its attributes, in lists, tuples and dictionaries there too, in the order in which they were
    assigned.

    Example:

    >>> inner = keras.Sequential([keras.layers.Dense(1, name="a"), keras.layers.Dense(1, name="b")], name="inner")
    >>> model = keras.Sequential([inner, keras.layers.Dense(1, name="c")], name="outer")
    >>> [layer.name for layer in all_layers(model)]
    ['outer', 'inner', 'a', 'b', 'c']
    """
    return _walk(layer, set())


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer but for those of the layers inside it, in its order."""
    of_others = {id(variable) for inner in inner_layers(layer) for variable in inner.variables}
    return [variable for variable in layer.variables if id(variable) not in of_others]


def _walk(layer, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for inner in inner_layers(layer):
        yield from _walk(inner, seen)


def inner_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers that a layer holds itself, each once, those inside of them left out."""
    held: Any = vars(layer)
    if isinstance(layer, keras.Model):
        # Its layers in their order, and then others that it holds in attributes of its own.
        held = [layer.layers, {name: value for name, value in held.items() if not name.startswith("_")}]
    if keras.backend.backend() == "torch":
        # PyTorch keeps layers that are attributes in a dictionary.
        held = [held, vars(layer)["_modules"]]
    return iter({id(inner): inner for inner in _layers_in(held)}.values())


def _layers_in(value: Any) -> Iterator[keras.layers.Layer]:
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _layers_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _layers_in(each)
