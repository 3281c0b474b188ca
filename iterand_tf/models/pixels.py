"""The first and the last layers that all models share: pixels in 0-255 come in, float32 logits go out."""

import keras

_NORMALIZE, _LOGITS = "normalize", "logits"
# Mean and variance of ImageNet's channels for pixels in 0-255; one channel takes their average.
_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_VARIANCE = ((0.229 * 255) ** 2, (0.224 * 255) ** 2, (0.225 * 255) ** 2)


def pixel_input(input_shape: tuple[int, int, int]):
    """An input of pixels in 0-255 named `image`, and the same normalized: what is served is what was trained."""
    channels = input_shape[-1]
    mean, variance = (_MEAN, _VARIANCE) if channels == 3 else (sum(_MEAN) / 3, sum(_VARIANCE) / 3)
    image = keras.Input(input_shape, name="image")
    # In float32 also under mixed precision, where 255 has only two digits.
    return image, keras.layers.Normalization(mean=mean, variance=variance, dtype="float32", name=_NORMALIZE)(image)


def logits(outputs):
    """The classifier's outputs in float32, also under mixed precision."""
    return keras.layers.Activation("linear", dtype="float32", name=_LOGITS)(outputs)


def from_pixels_to_logits(model: keras.Model) -> bool:
    """Whether a model begins and ends as those of `build` do, so that what it takes and gives is known."""
    layers = getattr(model, "layers", [])
    if len(layers) < 3 or (layers[1].name, layers[-1].name) != (_NORMALIZE, _LOGITS):
        return False
    is_linear = isinstance(layers[-1], keras.layers.Activation) and layers[-1].activation is keras.activations.linear
    return isinstance(layers[1], keras.layers.Normalization) and is_linear
