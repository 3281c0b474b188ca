"""The short way to say a method: a name, a number, or both."""

import dataclasses
from typing import Any

import keras

from iterand_tf import checks
from iterand_tf.methods.magnitude_pruning import MagnitudePruning
from iterand_tf.methods.method import Method
from iterand_tf.methods.random_pruning import RandomPruning
from iterand_tf.methods.supermask import Supermask

METHODS: dict[str, type[Method]] = {
    "supermask": Supermask,
    "magnitude_pruning": MagnitudePruning,
    "random_pruning": RandomPruning,
}


def resolve(method: Any, sparsity: Any = None) -> Method:
    """The method object that a name, an object or its Keras configuration stands for.

    Args:
        method: a key of `METHODS`, a method object, or what Keras has made of one in a configuration.
        sparsity: a number replaces the method's own sparsity, None keeps it, and a method object replaces the method.

    Raises:
        ArgumentError: if there is no such method, or the sparsity is out of its range.

    Example:

    >>> resolve("magnitude_pruning", 0.8).sparsity
    0.8
    >>> resolve(Supermask(0.9, binarize=True)).sparsity
    0.9
    """
    if isinstance(sparsity, Method):
        return sparsity
    if isinstance(method, dict):
        method = keras.saving.deserialize_keras_object(method)
    if isinstance(method, str):
        method = METHODS[checks.one_of("method", method, tuple(METHODS))]()
    if not isinstance(method, Method):
        raise checks.ArgumentError("method", f"one of {', '.join(METHODS)}, or a method object", method)
    return method if sparsity is None else dataclasses.replace(method, sparsity=sparsity)
