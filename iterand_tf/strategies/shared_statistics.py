"""Replicas validate with the same BatchNormalization statistics."""

import keras
import numpy as np
import tensorflow as tf

from iterand_tf.strategies.strategy import of_chief


class ShareStatistics(keras.callbacks.Callback):
    """Before validation, gives all replicas the first one's moving statistics, which are those that are saved.

    Where BatchNormalization is not synchronized each replica has its own, and validation would be of several networks.

    Args:
        strategy: that the model is trained with.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        super().__init__()
        self._strategy = strategy

    def on_test_begin(self, logs=None):
        variables = [each for each in self.model.non_trainable_variables if each.name.startswith("moving_")]
        arrays = [np.asarray(variable) for variable in variables]
        if not arrays:
            return
        ends = np.cumsum([array.size for array in arrays])
        shared = np.split(of_chief(self._strategy, np.concatenate([array.ravel() for array in arrays])), ends[:-1])
        for variable, array, values in zip(variables, arrays, shared, strict=True):
            variable.assign(values.reshape(array.shape).astype(array.dtype))
