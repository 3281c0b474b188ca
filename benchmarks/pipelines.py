"""Input pipelines: the library's against others on the same images.

CIFAR-10: random crops resized to 32x32 and flips of 12,800 images in memory, in batches of 128, against keras_cv and
against tf.image on each image. ImageNet, with --data_dir: epochs of its 400 JPEGs, random crops resized to 224 pixels,
flips, shuffling, batches of 50, against only decoding the same files, in a loop and in as many calls at once as the
pipeline has.
"""

import environment  # noqa: F401
import numpy as np
import tensorflow as tf
from sides import Case, Ratio, take_turns

from iterand_tf.data import ArrayExamples, load
from iterand_tf.data.examples import DECODERS

BATCH_SIZE = 128
NUM_EXAMPLES = 100 * BATCH_SIZE
IMAGENET_EPOCHS = 16


def keras_cv_batches(examples):
    import keras_cv

    layers = [
        keras_cv.layers.RandomCropAndResize((32, 32), crop_area_factor=(0.08, 1.0), aspect_ratio_factor=(3 / 4, 4 / 3)),
        keras_cv.layers.RandomFlip("horizontal"),
    ]

    def augment(images, labels):
        batch = {"images": tf.cast(images, tf.float32), "labels": tf.one_hot(labels, 10)}
        for layer in layers:
            batch = layer(batch, training=True)
        return batch["images"], batch["labels"]

    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels)).shuffle(NUM_EXAMPLES)
    return dataset.batch(BATCH_SIZE).map(augment, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def tf_image_batches(examples):
    def augment(image, label):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            (32, 32, 3),
            tf.zeros((1, 0, 4)),
            min_object_covered=0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, begin, size), (32, 32))
        return tf.image.random_flip_left_right(image), tf.one_hot(label, 10)

    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels)).shuffle(NUM_EXAMPLES)
    return dataset.map(augment, tf.data.AUTOTUNE).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def drain(batches):
    for _ in batches:
        pass


def cases(options):
    rounds = 3 if options.quick else 7
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (NUM_EXAMPLES, 32, 32, 3), dtype=np.uint8)
    examples = ArrayExamples(images, draw.integers(0, 10, NUM_EXAMPLES), num_classes=10)
    sides = {
        "iterand_tf": examples.training_batches(BATCH_SIZE, "crop_flip", seed=0, first_epoch=0, epochs=1),
        "keras_cv": keras_cv_batches(examples),
        "tf.image": tf_image_batches(examples),
    }
    seconds = take_turns({name: lambda b=batches: drain(b) for name, batches in sides.items()}, rounds)
    ratios = (Ratio("keras_cv", "iterand_tf"), Ratio("tf.image", "iterand_tf"))
    yield Case(f"CIFAR-10, {NUM_EXAMPLES:,} images", seconds, ratios)
    if options.data_dir and not options.quick:
        yield imagenet(options.data_dir, rounds)


def imagenet(data_dir, rounds):
    import tensorflow_datasets as tfds

    examples = load("imagenet2012", data_dir, validation_split=0, image_size=224).train
    encoded = tfds.builder("imagenet2012", data_dir=data_dir).as_dataset(
        split="train",
        decoders=tfds.decode.PartialDecoding({"image": True}, {"image": tfds.decode.SkipDecoding()}),
        # ImageNet is larger than the memory.
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    encoded = encoded.map(lambda example: example["image"]).repeat(IMAGENET_EPOCHS)

    def decode(image):
        return tf.io.decode_jpeg(image, channels=3)

    together = f"decoding, {DECODERS} at once"
    turns = {
        "iterand_tf": lambda: drain(examples.training_batches(50, "crop_flip", 0, 0, IMAGENET_EPOCHS)),
        "decoding in a loop": lambda: drain(map(decode, encoded)),
        together: lambda: drain(encoded.map(decode, DECODERS)),
    }
    ratios = (Ratio("decoding in a loop", "iterand_tf"), Ratio(together, "iterand_tf"))
    num_images = examples.num_examples * IMAGENET_EPOCHS
    return Case(f"ImageNet, {num_images:,} images", take_turns(turns, min(rounds, 5)), ratios)
