"""Batched random crops and flips, and keras_cv's policies on top of them.

Random draws are stateless: a batch is a function of its images and a seed, an integer tensor of shape (2,). An encoded
image is a scalar string: a JPEG, PNG, BMP, GIF or WebP file. The crops follow the paper's CIFAR
experiments (Chijiwa et al., NeurIPS 2021, section 5): pad, random resized crop, horizontal flip.
"""

import math
from collections.abc import Callable

import tensorflow as tf

KERAS_CV_POLICIES = ("randaugment", "mixup", "cutmix")
AUGMENTATIONS = ("none", "crop_flip", *KERAS_CV_POLICIES)

CROP_PADDING = 4
_AREA = (0.08, 1.0)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_CANDIDATES = 10
# The ImageNet experiments resize the shorter side to 256 pixels and take the centre 224.
_CENTRE_FRACTION = 224 / 256


def random_boxes(count: int, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws crop boxes: area 0.08 to 1 of the image, aspect ratio 3/4 to 4/3, log-uniform.

    Of ten candidates the first that fits is used, else the whole image. The result is float32 of shape (count, 4): top,
    left, height and width in whole pixels.
    """
    seeds = tf.random.split(seed, 4)
    shapes = ((count, _CANDIDATES), (count, _CANDIDATES), (count,), (count,))
    area, ratio, top, left = (
        tf.random.stateless_uniform(shape, each) for shape, each in zip(shapes, tf.unstack(seeds), strict=True)
    )
    return _boxes(area, ratio, tf.stack([top, left], axis=1), height, width)


def _boxes(for_area, for_ratio, for_corner, height, width):
    """Boxes from uniform numbers in [0, 1): ten candidates for area and ratio, two for top and left, for each box."""
    full = tf.cast(tf.stack([height, width]), tf.float32)
    area = (_AREA[0] + (_AREA[1] - _AREA[0]) * for_area) * full[0] * full[1]
    ratio = tf.exp(_LOG_RATIO[0] + (_LOG_RATIO[1] - _LOG_RATIO[0]) * for_ratio)
    sizes = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=2)))
    fits = tf.reduce_all((sizes >= 1) & (sizes <= full), axis=2)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1, output_type=tf.int32)
    size = tf.where(tf.reduce_any(fits, axis=1, keepdims=True), tf.gather(sizes, first, batch_dims=1), full)
    corner = tf.floor(for_corner * (full - size + 1))
    return tf.concat([corner, size], axis=1)


def crop_flip(images: tf.Tensor, seed: tf.Tensor, padding: int = CROP_PADDING) -> tf.Tensor:
    """Pads with black, crops at random, resizes to the former size (bilinear) and flips half of the images.

    The images are numbers in 0-255 of shape (batch, height, width, channels), height and width static.
    """
    height, width = images.shape[1:3]
    count = tf.shape(images)[0]
    seeds = tf.random.split(seed, 2)
    boxes = random_boxes(count, height + 2 * padding, width + 2 * padding, seeds[0])
    top, left, box_height, box_width = tf.unstack(boxes, axis=1)
    # One black pixel around the image to blend with; what lies farther out, crop_and_resize makes black itself.
    bordered = tf.pad(tf.cast(images, tf.float32), [(0, 0), (1, 1), (1, 1), (0, 0)])
    first_y, last_y = _sample_range(top - padding, box_height, height)
    first_x, last_x = _sample_range(left - padding, box_width, width)
    flip = tf.random.stateless_uniform((count,), seeds[1]) < 0.5
    first_x, last_x = tf.where(flip, last_x, first_x), tf.where(flip, first_x, last_x)
    boxes = tf.stack([first_y, first_x, last_y, last_x], axis=1)
    crops = tf.image.crop_and_resize(bordered, boxes, tf.range(count), (height, width), extrapolation_value=0)
    return tf.ensure_shape(crops, images.shape)


def _sample_range(start, size, new_size):
    """Centres of the first and last new pixel, for crop_and_resize: fractions of the last index of the bordered image.

    `start` and `size` are in pixels of the image without its border of 1, whose size is `new_size`.
    """
    scale = size / new_size
    last_index = new_size + 1
    return (start + 0.5 + 0.5 * scale) / last_index, (start + 0.5 + (new_size - 0.5) * scale) / last_index


def policy(name: str, seed: int) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """What one of `AUGMENTATIONS` does to a batch after crop and flip: float images in 0-255 and one-hot labels.

    `"randaugment"`, `"mixup"` and `"cutmix"` are keras_cv's; their draws come from keras_cv's own generators, seeded
    with `seed`, and do not depend on the batch's number. The others change nothing.
    """
    if name not in KERAS_CV_POLICIES:
        return lambda images, labels: (images, labels)
    # Importing keras_cv takes seconds, and these policies alone need it.
    import keras_cv

    # Some of their layers draw from TensorFlow's global generator, which has no seed of its own.
    tf.random.set_global_generator(tf.random.Generator.from_seed(seed))
    layer = {
        "randaugment": lambda: keras_cv.layers.RandAugment(value_range=(0, 255), seed=seed, dtype="float32"),
        "mixup": lambda: keras_cv.layers.MixUp(seed=seed, dtype="float32"),
        "cutmix": lambda: keras_cv.layers.CutMix(seed=seed, dtype="float32"),
    }[name]()

    def apply(images, labels):
        # RandAugment changes colours, and takes three channels only.
        is_grey = name == "randaugment" and images.shape[-1] == 1
        inputs = tf.image.grayscale_to_rgb(images) if is_grey else images
        batch = layer({"images": inputs, "labels": labels}, training=True)
        if is_grey:
            batch["images"] = tf.image.rgb_to_grayscale(batch["images"])
        return tf.ensure_shape(batch["images"], images.shape), tf.ensure_shape(batch["labels"], labels.shape)

    return apply


def random_crop_of_encoded(encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Decodes a random crop of one encoded image, resizes it to `size` pixels square and flips it half of the time.

    Of a JPEG only the crop is decoded. The result is uint8.
    """
    # One draw for all that is random: a second one would cost a tenth of decoding the image.
    uniform = tf.random.stateless_uniform((1, 2 * _CANDIDATES + 3), seed)

    def crop_window(height, width):
        area, ratio = uniform[:, :_CANDIDATES], uniform[:, _CANDIDATES : 2 * _CANDIDATES]
        return tf.cast(_boxes(area, ratio, uniform[:, -3:-1], height, width)[0], tf.int32)

    image = _decode_window(encoded, crop_window, dct_method="INTEGER_FAST", fancy_upscaling=False)
    # The cast cuts off, so that adding a half rounds.
    image = tf.cast(tf.image.resize(image, (size, size)) + 0.5, tf.uint8)
    image = tf.cond(uniform[0, -1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, (size, size, 3))


def centre_of_encoded(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """The evaluation image: the centre square of 224/256 of the shorter side, resized (bilinear, antialiased)."""

    def centre_window(height, width):
        side = tf.cast(tf.round(tf.cast(tf.minimum(height, width), tf.float32) * _CENTRE_FRACTION), tf.int32)
        return tf.stack([(height - side) // 2, (width - side) // 2, side, side])

    image = _decode_window(encoded, centre_window)
    return tf.ensure_shape(tf.image.resize(image, (size, size), antialias=True), (size, size, 3))


def whole_of_encoded(encoded: tf.Tensor, size: tuple[int, int], channels: int) -> tf.Tensor:
    """One encoded image as it is, float32 in 0-255, resized to `size`, height and width, where that differs."""
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image = tf.image.resize(tf.ensure_shape(image, (None, None, channels)), size, antialias=True)
    return tf.ensure_shape(image, (*size, channels))


def _decode_window(encoded, window_of, **jpeg_arguments):
    def of_jpeg():
        height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
        return tf.io.decode_and_crop_jpeg(encoded, window_of(height, width), channels=3, **jpeg_arguments)

    def of_other():
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(window_of(*tf.unstack(tf.shape(image)[:2])))
        return image[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_other)
    return tf.ensure_shape(image, (None, None, 3))
