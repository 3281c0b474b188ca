"""The paper's networks; one definition gives the network of stock layers and its subnetwork form."""

import keras

from iterand_tf import checks
from iterand_tf.layers import share_kept
from iterand_tf.models.convnets import convnet_features
from iterand_tf.models.factories import LayerFactory, StockFactory, SubnetFactory
from iterand_tf.models.pixels import from_pixels_to_logits, logits, pixel_input
from iterand_tf.models.resnets import SHAPES, resnet_features

_CONVNET_STAGES = {"conv2": 1, "conv4": 2, "conv6": 3, "conv8": 4}

NAMES = (*_CONVNET_STAGES, *SHAPES)
STEMS = ("cifar", "imagenet")

__all__ = [
    "NAMES",
    "STEMS",
    "LayerFactory",
    "StockFactory",
    "SubnetFactory",
    "build",
    "from_pixels_to_logits",
    "smallest_image",
]


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
        layers: `SubnetFactory(...)` (the default, with its defaults) or `StockFactory(...)`.
        width_factor: factor on the widths, above 1/128; the heads and the residual networks' stems keep theirs.
        stem: of a residual network, one of `STEMS`; None chooses cifar for images of at most 64 pixels.
        batch_normalization: of conv2 to conv8, after each layer but the head; residual networks always have it.

    Returns:
        A functional model, not compiled.

    Raises:
        ValueError: if an argument is out of its range or the images are too small for the network.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 5.

    Example:

    >>> from iterand_tf.models import build
    >>> build("conv2", (8, 8, 1), num_classes=10, width_factor=0.25).output_shape
    (None, 10)
    """
    layers = layers or SubnetFactory()
    checks.one_of("name", name, NAMES)
    checks.whole_number("num_classes", num_classes, minimum=1)
    checks.number("width_factor", width_factor, above=1 / 128)
    if stem is not None:
        checks.one_of("stem", stem, STEMS)
    smallest = smallest_image(name)
    if min(input_shape[:2]) < smallest:
        raise checks.ArgumentError("input_shape", f"at least {smallest} pixels high and wide for {name}", input_shape)
    image, x = pixel_input(input_shape)
    if name in SHAPES:
        x = resnet_features(x, SHAPES[name], layers, width_factor, stem)
    else:
        x = convnet_features(x, _CONVNET_STAGES[name], layers, width_factor, batch_normalization)
    outputs = layers.head(num_classes, use_bias=True, name="head")(x)
    model = keras.Model(image, logits(outputs), name=name)
    share_kept(model)
    return model


def smallest_image(name: str) -> int:
    """Height and width of the smallest images that a network takes, in pixels.

    Args:
        name: one of `NAMES`.

    Example:

    >>> smallest_image("conv6"), smallest_image("resnet18")
    (8, 1)
    """
    return 2 ** _CONVNET_STAGES.get(name, 0)
