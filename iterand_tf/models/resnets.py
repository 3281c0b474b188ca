"""Residual networks with CIFAR and ImageNet stems.

Source: He et al., CVPR 2016, with the stride on the 3x3 convolution of a bottleneck; Zagoruyko and Komodakis, BMVC
2016 (wide); widths as in Chijiwa et al., NeurIPS 2021, section 5: the stem stays 64 wide.
"""

import dataclasses

import keras

from iterand_tf.models.factories import LayerFactory

_STEM_WIDTH = 64
_STAGE_WIDTHS = (64, 128, 256, 512)
_LARGEST_CIFAR_SIZE = 64


@dataclasses.dataclass(frozen=True)
class ResNetShape:
    """Blocks of each stage; `bottleneck` blocks end four times as wide, their inner width times `inner_factor`."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool = False
    inner_factor: int = 1


SHAPES = {
    "resnet18": ResNetShape((2, 2, 2, 2)),
    "resnet34": ResNetShape((3, 4, 6, 3)),
    "resnet50": ResNetShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetShape((3, 4, 23, 3), bottleneck=True),
    "wide_resnet50_2": ResNetShape((3, 4, 6, 3), bottleneck=True, inner_factor=2),
}


def resnet_features(x, shape: ResNetShape, layers: LayerFactory, width_factor: float, stem: str | None):
    """The stem, four stages of residual blocks and the average of all pixels."""
    if (stem or ("cifar" if min(x.shape[1:3]) <= _LARGEST_CIFAR_SIZE else "imagenet")) == "cifar":
        x = _convolution(layers, x, _STEM_WIDTH, 3, 1, "stem")
    else:
        x = _convolution(layers, x, _STEM_WIDTH, 7, 2, "stem")
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for stage, width in enumerate(_STAGE_WIDTHS, start=1):
        for block in range(1, shape.blocks[stage - 1] + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(layers, shape, x, round(width * width_factor), strides, f"stage{stage}_block{block}")
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def _block(layers, shape, inputs, width, strides, name):
    if shape.bottleneck:
        inner, outer = width * shape.inner_factor, 4 * width
        plan = [(inner, 1, 1), (inner, 3, strides), (outer, 1, 1)]
    else:
        outer = width
        plan = [(width, 3, strides), (width, 3, 1)]
    x = inputs
    for index, (filters, kernel_size, stride) in enumerate(plan, start=1):
        x = _convolution(layers, x, filters, kernel_size, stride, f"{name}_{index}", relu=index < len(plan))
    shortcut = inputs
    if strides > 1 or inputs.shape[-1] != outer:
        shortcut = _convolution(layers, inputs, outer, 1, strides, f"{name}_shortcut", relu=False)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolution(layers, x, filters, kernel_size, strides, name, relu=True):
    """Symmetrically padded convolution and BatchNormalization, and ReLU if `relu`."""
    padding = "same"
    if strides > 1:
        # "same" would pad one side only.
        padding = "valid"
        if kernel_size > 1:
            x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    convolution = layers.conv2d(
        filters, kernel_size, strides=strides, padding=padding, use_bias=False, name=f"{name}_conv"
    )
    x = layers.batch_normalization(f"{name}_bn")(convolution(x))
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x
