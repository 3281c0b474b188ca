"""Makes masks permanent: Subnet layers become stock Keras layers."""

import keras

from iterand_tf import SubnetLayer, subnet_layers
from iterand_tf.models.factories import SampledKernel


def bake(model: keras.Model) -> keras.Model:
    """A copy of a model in which each Subnet layer is a stock Keras layer with `where(mask, kernel, 0)`.

    Nested models are baked too. The copy computes the same outputs and loads where iterand_tf is not installed.

    Args:
        model: a built functional or Sequential model; it is not changed.

    Raises:
        ValueError: if the model, or a layer with Subnet layers inside, is subclassed, or the model is not built.

    >>> import iterand_tf
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, sparsity=0.5)])
    >>> [type(layer).__name__ for layer in bake(model).layers]
    ['Dense']
    """
    if not (isinstance(model, keras.Sequential) or hasattr(model, "operations")):
        raise ValueError(
            "bake takes a functional or Sequential model; write a subclassed one as keras.Model(inputs, outputs). "
            f"Received: model={model.name} of class {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def stock_layer(layer):
        if isinstance(layer, SubnetLayer):
            return layer.to_dense()
        if not isinstance(layer, keras.layers.Layer):  # an operation such as x * 2
            return type(layer).from_config(layer.get_config())
        if any(subnet_layers(layer)):
            raise ValueError(
                f"bake cannot replace the Subnet layers inside {layer.name} of class {type(layer).__name__}; "
                f"build it as a functional or Sequential model. Received: model={model.name}"
            )
        config = layer.get_config()
        if isinstance(getattr(layer, "kernel_initializer", None), SampledKernel):
            config["kernel_initializer"] = "zeros"  # a name that loads without this project; the values are copied
        copy = type(layer).from_config(config)
        copies.append((layer, copy))
        return copy

    baked = keras.models.clone_model(model, clone_function=stock_layer, recursive=True)
    for layer, copy in copies:
        copy.set_weights(layer.get_weights())
    return baked
