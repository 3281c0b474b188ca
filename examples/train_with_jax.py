"""Trains any network of models.build on images and labels of an .npz file, with JAX and without TensorFlow.

    PYTHONPATH=. KERAS_BACKEND=jax python examples/train_with_jax.py --data=cifar10.npz --model=resnet18 --sparsity=0.6

The defaults are the paper's settings for Conv6 (Chijiwa et al., NeurIPS 2021, section 5). examples/make_npz.py makes
the file. Needs jax, keras and numpy.
"""

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import ops

from iterand_tf import Rerandomize, Supermask, models, sparsity_report
from iterand_tf.optimization import CoupledSGD, learning_rate_schedule


class RandomResizedCropAndFlip(keras.layers.Layer):
    """A random part of each image, resized to the whole, and flipped half of the time; on the device.

    Args:
        pad: zeros around the image, in pixels.
        area: smallest and largest part of the padded image.
        ratio: largest ratio of width to height, and of height to width.
        seed: of all draws.
    """

    def __init__(self, pad=4, area=(0.08, 1.0), ratio=4 / 3, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.pad, self.area, self.ratio = pad, area, ratio
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training:
            return images
        size = images.shape[1]
        padded = size + 2 * self.pad
        images = ops.pad(ops.cast(images, "float32"), [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        area, log_ratio, left, top, flip = ops.unstack(
            keras.random.uniform((5, ops.shape(images)[0]), seed=self.generator), axis=0
        )
        area = self.area[0] + (self.area[1] - self.area[0]) * area
        stretch = ops.exp((2 * log_ratio - 1) * np.log(self.ratio) / 2)
        width, height = (ops.minimum(ops.sqrt(area) * each, 1.0) * padded for each in (stretch, 1 / stretch))
        left, top = left * (padded - width), top * (padded - height)
        scale_x, scale_y = (side / size for side in (width, height))
        # Output pixel x comes from input pixel left + scale * x; from the right where it is flipped.
        flipped = flip < 0.5
        a0 = ops.where(flipped, -scale_x, scale_x)
        a2 = ops.where(flipped, left + scale_x * (size - 1), left)
        zeros = ops.zeros_like(a0)
        transform = ops.stack([a0, zeros, a2, zeros, scale_y, top, zeros, zeros], axis=1)
        return ops.image.affine_transform(images, transform, "bilinear", "constant")[:, :size, :size]


class Speed(keras.callbacks.Callback):
    """Adds images/s to the logs of each epoch, and the seconds since training began."""

    def __init__(self, num_images):
        super().__init__()
        self.num_images = num_images

    def on_train_begin(self, logs=None):
        self.first = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["images_per_second"] = self.num_images / (self.trained - self.start)
        logs["seconds"] = time.perf_counter() - self.first


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images, train_labels, test_images, test_labels")
    parser.add_argument("--model", default="conv6", choices=models.NAMES)
    parser.add_argument("--width_factor", type=float, default=1.0)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--weight_distribution", default="signed_constant")
    parser.add_argument("--rerandomization_rate", type=float, default=0.1, help="0 is edge-popup")
    parser.add_argument("--rerandomization_period", type=int, default=300)
    parser.add_argument("--learning_rate", type=float, default=0.3, help="0.1 for the residual networks")
    parser.add_argument("--weight_decay", type=float, default=1e-4, help="5e-4 for the residual networks")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--augment", type=int, default=1, help="0 for images that must not be cropped, such as digits")
    parser.add_argument("--precision", default="float32", help="mixed_bfloat16 on GPUs and TPUs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", default="metrics.csv", help="metrics of each epoch")
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy(args.precision)
    with np.load(args.data) as arrays:
        train_images, train_labels = arrays["train_images"], arrays["train_labels"]
        test = arrays["test_images"], arrays["test_labels"]
    order = np.random.default_rng(args.seed).permutation(len(train_images))
    held_out, rest = np.split(order, [len(order) // 10])
    method = Supermask(args.sparsity, weight_distribution=args.weight_distribution)
    factory = models.SubnetFactory(method, seed=args.seed)
    shape = train_images.shape[1:]
    network = models.build(args.model, shape, int(train_labels.max()) + 1, factory, args.width_factor)
    inputs = keras.Input(shape)
    augmented = RandomResizedCropAndFlip(seed=args.seed, dtype="float32")(inputs) if args.augment else inputs
    model = keras.Model(inputs, network(augmented))
    steps = -(-len(rest) // args.batch_size)
    schedule = learning_rate_schedule("cosine", args.learning_rate, steps, args.epochs, 0, 0)
    model.compile(
        CoupledSGD(schedule, momentum=0.9, l2=args.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    print(sparsity_report(model), flush=True)
    rerandomize = Rerandomize(args.rerandomization_period, args.rerandomization_rate)
    model.fit(
        train_images[rest],
        train_labels[rest],
        args.batch_size,
        args.epochs,
        validation_data=(train_images[held_out], train_labels[held_out]),
        callbacks=[rerandomize, Speed(len(rest)), keras.callbacks.CSVLogger(args.csv)],
        verbose=2,
    )
    print(f"test accuracy {model.evaluate(*test, args.batch_size, verbose=0, return_dict=True)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
