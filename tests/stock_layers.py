"""The stock layer that a Subnet stands for: the oracle of its outputs, losses and gradients."""

import keras

from iterand_tf.cloning import copy_of, copy_weights


def stock_of(layer, *inputs):
    """A stock layer that is made apart, with the values of a Subnet and zeros for the entries that it prunes.

    Args:
        layer: a built Subnet layer.
        *inputs: arrays that the stock layer is built on.
    """
    stock = copy_of(layer.layer, name=layer.name)
    stock(*(keras.KerasTensor(each.shape, keras.backend.standardize_dtype(each.dtype)) for each in inputs))
    copy_weights(layer, stock)
    return stock
