"""The axes of a kernel that an output sums over, and how many inputs they are, which scale Kaiming's distributions."""

import math

import keras

_DEPTHWISE = "depthwise_kernel"
_DEPTHWISE_LAYERS = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def reduction_axes(layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a kernel that an output of its layer sums over; on the others stand the outputs.

    - Most kernels, among them those of recurrent layers, have the outputs on their last axis: all other axes.
    - Depthwise kernels `(window..., channels, multiplier)`: the window.
    - Transposed convolutions `(window..., filters, channels)`: the window and the channels.
    - `EinsumDense`: the axes that are missing in the output of its equation.
    - Embeddings `(tokens, features)`: none, since an output is one entry.

    Example:

    >>> reduction_axes(keras.layers.Conv2D(8, 3), "kernel", (3, 3, 16, 8))
    (0, 1, 2)
    >>> reduction_axes(keras.layers.Conv2DTranspose(8, 4), "kernel", (4, 4, 8, 16))
    (0, 1, 3)
    """
    last = len(shape) - 1
    if name == "embeddings":
        return ()
    if name == _DEPTHWISE or (name == "kernel" and isinstance(layer, _DEPTHWISE_LAYERS)):
        return tuple(range(last - 1))
    if isinstance(layer, _TRANSPOSED):
        return (*range(last - 1), last)
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, outputs = layer.equation.replace("...", "").split("->")
        return tuple(axis for axis, letter in enumerate(inputs.split(",")[1]) if letter not in outputs)
    return tuple(range(last))


def fan_in(layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> int:
    """The number of products that an output of a layer sums up, for one of its kernels.

    That is the product of the sizes of the `reduction_axes`; a recurrent kernel's is the number of units. An output of
    a transposed convolution sees every stride-th place of the window alone: the product over its strides, rounded up.

    Reference:
        He et al., ICCV 2015, section 2.2.
    """
    inputs = math.prod(shape[axis] for axis in reduction_axes(layer, name, shape))
    strides = math.prod(layer.strides) if isinstance(layer, _TRANSPOSED) else 1
    return max(math.ceil(inputs / strides), 1)
