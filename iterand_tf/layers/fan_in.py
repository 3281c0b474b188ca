"""How many inputs each output of a layer sums over: what Kaiming's distributions are scaled by."""

import math

import keras

_DEPTHWISE = "depthwise_kernel"
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def fan_in(layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> int:
    """The number of products that an output of a layer sums up, for one of its kernels.

    - Most kernels, among them those of recurrent layers, have the outputs on their last axis: the product of all other
      sizes. A recurrent kernel's is the number of units.
    - Depthwise kernels `(window..., channels, multiplier)`: the size of the window.
    - Transposed convolutions `(window..., filters, channels)`: an output sees every stride-th place of the window,
      `channels * window / strides`, rounded up.
    - `EinsumDense`: the product of the axes that are summed over.
    - Embeddings `(tokens, features)`: 1, since an output is one entry.

    Args:
        layer: that the kernel belongs to.
        name: of the kernel.
        shape: of the kernel.

    Reference:
        He et al., ICCV 2015, section 2.2.

    Example:

    >>> fan_in(keras.layers.Conv2D(8, 3), "kernel", (3, 3, 16, 8))
    144
    >>> fan_in(keras.layers.Conv2DTranspose(8, 4, strides=2), "kernel", (4, 4, 8, 16))
    64
    """
    if name == "embeddings":
        return 1
    if name == _DEPTHWISE or (name == "kernel" and isinstance(layer, _DEPTHWISE_LAYERS)):
        return math.prod(shape[:-2])
    if isinstance(layer, _TRANSPOSED):
        return max(math.ceil(shape[-1] * math.prod(shape[:-2]) / math.prod(layer.strides)), 1)
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, outputs = layer.equation.replace("...", "").split("->")
        axes = inputs.split(",")[1]
        return math.prod(size for axis, size in zip(axes, shape, strict=True) if axis not in outputs)
    return max(math.prod(shape[:-1]), 1)


_DEPTHWISE_LAYERS = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
