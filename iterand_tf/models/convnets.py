"""Conv2, Conv4, Conv6 and Conv8: VGG-like networks, in the papers without BatchNormalization.

Source: Frankle and Carbin, ICLR 2019 (Conv2 to Conv6); Ramanujan et al., CVPR 2020 (Conv8); Conv6 is the small
network of Chijiwa et al., NeurIPS 2021, section 5.
"""

import keras

from iterand_tf.models.factories import LayerFactory
from iterand_tf.models.pixels import logits, pixel_input

_STAGE_WIDTHS = (64, 128, 256, 512)
_HIDDEN_UNITS = 256


def build_convnet(
    num_stages: int,
    input_shape: tuple[int, int, int],
    num_classes: int,
    layers: LayerFactory,
    width_factor: float,
    batch_normalization: bool,
) -> keras.Model:
    """`num_stages` times two 3x3 convolutions and 2x2 max pooling, then two hidden layers and the head.

    Args:
        num_stages: 1 to 4; the widths are 64, 128, 256 and 512 times `width_factor`.
        input_shape: (height, width, channels), height and width at least `2 ** num_stages`; pixels are in 0-255.
        num_classes: number of logits.
        layers: makes the layers, stock or Subnet.
        width_factor: factor on all widths but the head's, above 0.
        batch_normalization: after each layer but the head, instead of biases.
    """

    def block(layer, x):
        x = layer(x)
        if batch_normalization:
            x = layers.batch_normalization(f"{layer.name}_bn")(x)
        return keras.layers.ReLU(name=f"{layer.name}_relu")(x)

    use_bias = not batch_normalization
    image, x = pixel_input(input_shape)
    for stage, stage_width in enumerate(_STAGE_WIDTHS[:num_stages], start=1):
        width = round(stage_width * width_factor)
        for index in (1, 2):
            name = f"stage{stage}_conv{index}"
            x = block(layers.conv2d(width, 3, padding="same", use_bias=use_bias, name=name), x)
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for index in (1, 2):
        x = block(layers.dense(round(_HIDDEN_UNITS * width_factor), use_bias=use_bias, name=f"hidden{index}"), x)
    outputs = layers.head(num_classes, use_bias=True, name="head")(x)
    return layers.network(image, logits(outputs), name=f"conv{2 * num_stages}")
