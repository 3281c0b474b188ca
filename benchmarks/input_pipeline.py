"""Times the training pipeline's augmentation against keras_cv's RandomCropAndResize and RandomFlip, in one process.

    python benchmarks/input_pipeline.py

Both take the same 32x32 images from memory and give float32 batches; they take turns, and medians are printed.
"""

import statistics
import time

import environment  # noqa: F401
import keras_cv
import numpy as np
import tensorflow as tf

from iterand_tf.data import ArrayExamples

BATCH_SIZE = 128
NUM_EXAMPLES = 100 * BATCH_SIZE
ROUNDS = 5


def keras_cv_batches(examples):
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


def images_per_second(batches):
    start = time.perf_counter()
    count = sum(images.shape[0] for images, _ in batches)
    return count / (time.perf_counter() - start)


def main():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (NUM_EXAMPLES, 32, 32, 3), dtype=np.uint8)
    examples = ArrayExamples(images, draw.integers(0, 10, NUM_EXAMPLES), num_classes=10)
    sides = {
        "iterand_tf": examples.training_batches(BATCH_SIZE, "crop_flip", seed=0, first_epoch=0, epochs=1),
        "keras_cv": keras_cv_batches(examples),
    }
    rates = {side: [] for side in sides}
    for batches in sides.values():
        images_per_second(batches)
    for _ in range(ROUNDS):
        for side, batches in sides.items():
            rates[side].append(images_per_second(batches))
    for side, values in rates.items():
        print(f"{side}: {statistics.median(values):,.0f} images/s (median of {ROUNDS})")
    ratios = [ours / theirs for ours, theirs in zip(rates["iterand_tf"], rates["keras_cv"], strict=True)]
    print(f"iterand_tf/keras_cv: {statistics.median(ratios):.2f} (median of the pairwise ratios)")


if __name__ == "__main__":
    main()
