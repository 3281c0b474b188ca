"""Conv2, Conv4, Conv6 and Conv8: VGG-like networks, in the papers without BatchNormalization.

Source: Frankle and Carbin, ICLR 2019 (Conv2 to Conv6); Ramanujan et al., CVPR 2020 (Conv8); Conv6 is the small
network of Chijiwa et al., NeurIPS 2021, section 5.
"""

import keras

from iterand_tf.models.factories import LayerFactory

_STAGE_WIDTHS = (64, 128, 256, 512)
_HIDDEN_UNITS = 256


def convnet_features(x, num_stages: int, layers: LayerFactory, width_factor: float, batch_normalization: bool):
    """`num_stages` times two 3x3 convolutions and 2x2 max pooling, then two hidden layers."""

    def block(layer, x):
        x = layer(x)
        if batch_normalization:
            x = layers.batch_normalization(f"{layer.name}_bn")(x)
        return keras.layers.ReLU(name=f"{layer.name}_relu")(x)

    use_bias = not batch_normalization
    for stage, stage_width in enumerate(_STAGE_WIDTHS[:num_stages], start=1):
        width = round(stage_width * width_factor)
        for index in (1, 2):
            name = f"stage{stage}_conv{index}"
            x = block(layers.conv2d(width, 3, padding="same", use_bias=use_bias, name=name), x)
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for index in (1, 2):
        x = block(layers.dense(round(_HIDDEN_UNITS * width_factor), use_bias=use_bias, name=f"hidden{index}"), x)
    return x
