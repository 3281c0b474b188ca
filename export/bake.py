"""Makes masks permanent: Subnet layers become stock Keras layers."""

import keras

from iterand_tf import Subnet, subnet_layers
from iterand_tf.cloning import clone, is_graph
from iterand_tf.models.factories import SampledKernel


def can_bake(model: keras.Model) -> bool:
    """Whether `bake` takes the model: each layer with Subnet layers inside is a functional or Sequential model."""
    if not is_graph(model):
        return False
    return all(
        can_bake(layer) if isinstance(layer, keras.Model) else isinstance(layer, Subnet)
        for layer in model.layers
        if any(subnet_layers(layer))
    )


def bake(model: keras.Model) -> keras.Model:
    """A copy of a model in which each Subnet layer is a stock Keras layer with `where(mask, kernel, 0)`.

    Nested models are baked too. The copy computes the same outputs and loads where iterand_tf is not installed.

    Args:
        model: a built functional or Sequential model; it is not changed.

    Raises:
        ValueError: if the model, or a layer with Subnet layers inside, is subclassed, the model is not built, or a
            layer cannot be made again from its configuration.

    Example:

    >>> import iterand_tf, keras
    >>> from export import bake
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, sparsity=0.5)])
    >>> [type(layer).__name__ for layer in bake(model).layers]
    ['Dense']
    """
    if not is_graph(model):
        raise ValueError(
            "bake takes a functional or Sequential model; write a subclassed one as keras.Model(inputs, outputs). "
            f"Received: model={model.name} of class {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if not can_bake(model):
        raise ValueError(
            "bake cannot replace the Subnet layers inside wrappers and subclassed layers; use Subnet layers directly. "
            f"Received: model={model.name}"
        )
    return clone(model, _stock_layer)


def _stock_layer(layer):
    if isinstance(layer, Subnet):
        return layer.to_stock()
    if isinstance(getattr(layer, "kernel_initializer", None), SampledKernel):
        # A name that loads without this project; the values are copied.
        return type(layer).from_config(layer.get_config() | {"kernel_initializer": "zeros"})
    return None
