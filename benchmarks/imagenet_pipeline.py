"""Images a second of the ImageNet input pipeline, against only decoding the same JPEGs.

    python benchmarks/imagenet_pipeline.py --data_dir=TFDS_ROOT

The pipeline reads TFRecords, shuffles, decodes random crops, flips them, resizes them to 224 pixels and batches. The
other sides read the same TFRecords and call tf.io.decode_jpeg on every image: in a loop, and in a map with as many
calls at once as the pipeline has. The three take turns, many epochs each, since 400 images are done before a pipeline
has started. Processor time is that of all threads.
"""

import argparse
import statistics
import time

import environment  # noqa: F401
import tensorflow as tf
import tensorflow_datasets as tfds

from iterand_tf.data import load
from iterand_tf.data.examples import DECODERS


def seconds_per_image(dataset, count):
    """(wall, processor) seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in dataset:
        pass
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    examples = load("imagenet2012", args.data_dir, validation_split=0, image_size=224).train
    builder = tfds.builder("imagenet2012", data_dir=args.data_dir)
    encoded = builder.as_dataset(
        split="train",
        decoders=tfds.decode.PartialDecoding({"image": True}, {"image": tfds.decode.SkipDecoding()}),
        # ImageNet is larger than the memory.
        read_config=tfds.ReadConfig(try_autocache=False),
    ).map(lambda example: example["image"])
    encoded = encoded.repeat(args.epochs)

    def decode(image):
        return tf.io.decode_jpeg(image, channels=3)

    sides = {
        "pipeline": lambda seed: examples.training_batches(args.batch_size, "crop_flip", seed, 0, args.epochs),
        "decode_jpeg in a loop": lambda seed: map(decode, encoded),
        f"decode_jpeg, {DECODERS} at once": lambda seed: encoded.map(decode, DECODERS),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(args.repeats + 1):
        for name, dataset_of in sides.items():
            seconds = seconds_per_image(dataset_of(number), examples.num_examples * args.epochs)
            if number:
                measured[name].append(seconds)
    for name, pairs in measured.items():
        walls, processors = zip(*pairs, strict=True)
        ratio = statistics.median(a / b for a, (b, _) in zip(walls, measured["pipeline"], strict=True))
        print(
            f"{name:24} {1 / statistics.median(walls):6.0f} images/s, {1e3 * statistics.median(processors):.2f} ms of "
            f"processor time an image; the pipeline is {ratio:.2f} times as fast (median of the pairwise ratios)"
        )


if __name__ == "__main__":
    main()
