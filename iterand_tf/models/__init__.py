"""The paper's networks; one definition gives the dense network and its subnetwork form."""

import keras

from iterand_tf.models.convnets import build_convnet
from iterand_tf.models.factories import DenseFactory, LayerFactory, SubnetFactory
from iterand_tf.models.resnets import SHAPES, build_resnet

_CONVNET_STAGES = {"conv2": 1, "conv4": 2, "conv6": 3, "conv8": 4}

NAMES = (*_CONVNET_STAGES, *SHAPES)
STEMS = ("cifar", "imagenet")

__all__ = ["NAMES", "STEMS", "DenseFactory", "LayerFactory", "SubnetFactory", "build"]


def build(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    layers: LayerFactory | None = None,
    width_factor: float = 1.0,
    stem: str | None = None,
    batch_normalization: bool = False,
) -> keras.Model:
    """Builds a network that maps pixels in 0-255 to float32 logits.

    Args:
        name: one of `NAMES`.
        input_shape: (height, width, channels).
        num_classes: number of logits, at least 1.
        layers: `SubnetFactory(...)` (the default, with its defaults) or `DenseFactory(...)`.
        width_factor: factor on the widths, above 0; the heads and the residual networks' stems keep theirs.
        stem: of a residual network, one of `STEMS`; None chooses cifar for images of at most 64 pixels.
        batch_normalization: of conv2 to conv8, after each layer but the head; residual networks always have it.

    Raises:
        ValueError: if an argument is out of range or the images are too small for the network.

    >>> build("conv2", (8, 8, 1), num_classes=10, width_factor=0.25).output_shape
    (None, 10)
    """
    layers = layers or SubnetFactory()
    if name not in NAMES:
        raise ValueError(f"the model must be one of {', '.join(NAMES)}. Received: name={name!r}")
    if width_factor <= 0 or round(64 * width_factor) < 1:
        raise ValueError(f"width_factor must be above 1/128. Received: width_factor={width_factor!r}")
    if stem is not None and stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)} or None. Received: stem={stem!r}")
    if name in SHAPES:
        return build_resnet(name, input_shape, num_classes, layers, width_factor, stem)
    stages = _CONVNET_STAGES[name]
    if min(input_shape[:2]) < 2**stages:
        raise ValueError(
            f"{name} needs images of at least {2**stages} pixels; choose a network with fewer stages. "
            f"Received: input_shape={input_shape}"
        )
    return build_convnet(stages, input_shape, num_classes, layers, width_factor, batch_normalization)
