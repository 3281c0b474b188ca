"""What this machine's TensorFlow can do, found out by trying."""

import functools

import keras
import tensorflow as tf

NO_CHANNELS_FIRST = (
    "TensorFlow's own CPU kernels take channels last only, and oneDNN's are switched off or lack this type here"
)


@functools.cache
def runs_channels_first(dtype: str = "float32") -> bool:
    """Whether a convolution with channels first runs on the CPU and has a gradient, as it does with oneDNN.

    Args:
        dtype: that it computes in; oneDNN leaves bfloat16 alone where the processor has no instructions for it.
    """
    kernel = tf.Variable(tf.ones((2, 2, 1, 1), dtype))
    try:
        with tf.GradientTape() as tape:
            outputs = keras.ops.conv(tf.ones((1, 1, 3, 3), dtype), kernel.value(), data_format="channels_first")
        tape.gradient(outputs, kernel)
    except tf.errors.OpError:
        return False
    return True
