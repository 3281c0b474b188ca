"""What this machine's TensorFlow can do, found out by trying."""

import functools

import keras
import tensorflow as tf

NO_CHANNELS_FIRST = "TensorFlow's own CPU kernels take channels last only, and oneDNN's are switched off"


@functools.cache
def runs_channels_first() -> bool:
    """Whether a convolution with channels first runs on the CPU, as it does with oneDNN."""
    try:
        keras.ops.conv(tf.ones((1, 1, 3, 3)), tf.ones((2, 2, 1, 1)), data_format="channels_first")
    except tf.errors.UnimplementedError:
        return False
    return True
