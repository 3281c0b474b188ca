"""Trains converted networks of keras.applications on CIFAR-10, bakes them, and compares the predictions.

python benchmarks/converted_models.py --data_dir=TFDS_ROOT
"""

import argparse
import statistics

import environment  # noqa: F401
import keras
import numpy as np

from export import bake
from iterand_tf import Rerandomize, data, sparsity_report, to_subnet

NETWORKS = {"MobileNetV2": 96, "ResNet50V2": 64}


class Losses(keras.callbacks.Callback):
    """The loss of each batch by itself."""

    def __init__(self):
        super().__init__()
        self.losses, self.sum = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        # Keras reports the mean of the epoch so far.
        total = logs["loss"] * (batch + 1)
        self.losses.append(total - self.sum)
        self.sum = total


def train(name, size, images, labels, steps, batch_size):
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(size, size, 3))
    model = to_subnet(network, sparsity=0.5, seed=0)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, steps)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), loss)
    images = np.asarray(keras.ops.image.resize(images / 127.5 - 1, (size, size)), np.float32)
    losses = Losses()
    model.fit(images, labels, batch_size, verbose=0, callbacks=[Rerandomize(period=100, rate=0.1), losses])
    tenth = len(losses.losses) // 10
    first, last = (statistics.mean(part) for part in (losses.losses[:tenth], losses.losses[-tenth:]))
    ours, baked = (each.predict(images[:64], verbose=0) for each in (model, bake(model)))
    difference = np.abs(ours - baked).max() / np.abs(ours).max()
    total = sparsity_report(model).total
    print(
        f"{name}, {total.num_weights:,} kernel entries at {total.sparsity:.4f}, {len(losses.losses)} steps of "
        f"{batch_size} images of {size}x{size}: loss {first:.3f} in the first tenth, {last:.3f} in the last; "
        f"relative difference of the bake's predictions {difference:.1e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args()
    number = args.steps * args.batch_size
    splits = data.load("cifar10", args.data_dir, 0.0, number, 0, 0, 0.2)
    batches = [(np.asarray(images), np.asarray(labels)) for images, labels in splits.train.evaluation_batches(1000)]
    images, labels = (np.concatenate(parts)[:number] for parts in zip(*batches, strict=True))
    for name, size in NETWORKS.items():
        train(name, size, images, labels.argmax(axis=-1), args.steps, args.batch_size)


if __name__ == "__main__":
    main()
