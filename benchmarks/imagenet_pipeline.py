"""Images a second of the ImageNet input pipeline, against a loop that only decodes the same JPEGs.

    python benchmarks/imagenet_pipeline.py --data_dir=TFDS_ROOT

The pipeline reads TFRecords, shuffles, decodes random crops, flips them, resizes them to 224 pixels and batches; the
loop calls tf.io.decode_jpeg on every image of the same files, as parallel. The two take turns, several epochs each.
"""

import argparse
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import tensorflow as tf
import tensorflow_datasets as tfds

from iterand_tf.data import load
from iterand_tf.data.examples import DECODERS


def images_per_second(dataset, count):
    start = time.perf_counter()
    for _ in dataset:
        pass
    return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    examples = load("imagenet2012", args.data_dir, validation_split=0, image_size=224).train
    count = examples.num_examples * args.epochs
    builder = tfds.builder("imagenet2012", data_dir=args.data_dir)
    decoders = {"image": tfds.decode.SkipDecoding()}
    encoded = builder.as_dataset(split="train", decoders=decoders).map(lambda example: example["image"])
    plain = encoded.repeat(args.epochs).map(lambda image: tf.io.decode_jpeg(image, channels=3), DECODERS)
    ours, theirs = [], []
    for number in range(args.repeats + 1):
        batches = examples.training_batches(args.batch_size, "crop_flip", number, 0, args.epochs)
        pair = images_per_second(batches, count), images_per_second(plain, count)
        if number:
            ours.append(pair[0])
            theirs.append(pair[1])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"pipeline {statistics.median(ours):.0f} images/s, decode_jpeg alone {statistics.median(theirs):.0f} images/s, "
        f"pipeline/decode {ratio:.2f} (median of the pairwise ratios)"
    )


if __name__ == "__main__":
    main()
