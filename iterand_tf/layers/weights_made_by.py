"""Who makes the weights of Keras layers, while others than the layers themselves are to."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

MakeWeight = Callable[[Callable[..., keras.Variable], keras.layers.Layer, str | None, dict[str, Any]], keras.Variable]


_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def weights_made_by(make: MakeWeight) -> Iterator[None]:
    """Within, all layers make their weights by a function of (Keras's add_weight, layer, name, its arguments).

    A layer makes its kernels in `build`, and layers inside of it as well: a kernel is found, whatever its layer is, by
    looking where all of them are made. Layers that other threads make are not concerned.

    Args:
        make: makes a weight of a layer and returns it. `name` is the weight's, or None; `arguments` are all keyword
            arguments of add_weight.

    Example:

    >>> shapes = []
    >>> def make(add_weight, layer, name, arguments):
    ...     shapes.append((name, arguments["shape"]))
    ...     return add_weight(layer, **arguments)
    >>> with weights_made_by(make):
    ...     keras.layers.Dense(2).build((1, 3))
    >>> shapes
    [('kernel', (3, 2)), ('bias', (2,))]
    """
    thread = threading.get_ident()

    def made(layer, *args, **kwargs):
        if threading.get_ident() != thread:
            # Another thread makes a model of its own.
            return add_weight(layer, *args, **kwargs)
        arguments = dict(kwargs)
        if args:
            # Keras takes the shape, and the initializer, as positional arguments too.
            arguments |= dict(zip(("shape", "initializer"), args, strict=False))
        arguments["shape"] = arguments.get("shape") or ()
        return make(add_weight, layer, arguments.get("name"), arguments)

    with _one_at_a_time:
        add_weight = keras.layers.Layer.add_weight
        keras.layers.Layer.add_weight = made
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = add_weight
