"""Times one training step of the subnet network against the same network dense, in one process.

    python benchmarks/step_time.py --model=conv6 --width_factor=0.25
    python benchmarks/step_time.py --model=resnet18 --steps=15

The two networks take turns, step by step; printed are the medians and the median of the pairwise ratios.
"""

import argparse
import statistics
import time

import environment  # noqa: F401
import keras
import numpy as np
import tensorflow as tf

from iterand_tf import models
from iterand_tf.optimization import CoupledSGD

NUM_CLASSES = 10
WARMUP_STEPS = 3


def compiled(name, image_size, width_factor, layers):
    model = models.build(name, (image_size, image_size, 3), NUM_CLASSES, layers, width_factor)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(CoupledSGD(0.01, momentum=0.9, l2=1e-4), loss)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="conv6", choices=models.NAMES)
    parser.add_argument("--width_factor", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    images = tf.constant(draw.uniform(0, 255, (args.batch_size, args.image_size, args.image_size, 3)), tf.float32)
    labels = tf.one_hot(draw.integers(0, NUM_CLASSES, args.batch_size), NUM_CLASSES)
    networks = {
        side: compiled(args.model, args.image_size, args.width_factor, layers)
        for side, layers in {
            "subnet": models.SubnetFactory(sparsity=args.sparsity),
            "dense": models.StockFactory(),
        }.items()
    }
    times = {side: [] for side in networks}
    for step in range(WARMUP_STEPS + args.steps):
        for side, network in networks.items():
            start = time.perf_counter()
            network.train_on_batch(images, labels)
            if step >= WARMUP_STEPS:
                times[side].append(time.perf_counter() - start)
    for side, seconds in times.items():
        print(f"{side}: {statistics.median(seconds) * 1e3:.1f} ms a step (median of {len(seconds)})")
    ratios = [subnet / dense for subnet, dense in zip(times["subnet"], times["dense"], strict=True)]
    print(f"subnet/dense: {statistics.median(ratios):.3f} (median of the pairwise ratios)")


if __name__ == "__main__":
    main()
