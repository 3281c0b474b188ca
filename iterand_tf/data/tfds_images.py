"""Image classification datasets of TensorFlow Datasets."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from iterand_tf.data.examples import ArrayExamples, EncodedExamples
from iterand_tf.data.splits import Splits, num_held_out, split_arrays
from iterand_tf.errors import DataError

DEFAULT_IMAGE_SIZE = 224
# Datasets whose decoded images take more than this are decoded as they are read.
MEMORY_LIMIT_BYTES = 4 * 2**30
_READ_BATCH = 1000
# Records that are shuffled at a time.
_SHUFFLE_BUFFER = 2048
_PARALLEL_SHARDS = 16
# Datasets whose split named test has no labels.
_TEST_SPLITS = {"imagenet2012": "validation"}


def load_tfds(
    name: str, data_dir: str, image_size: int, validation_split: float, max_train_examples: int, seed: int
) -> Splits:
    """A TFDS image classification dataset; prepared data is used, anything else is downloaded.

    Images of one size that fit in memory are decoded once; others are decoded as they are read.
    """
    builder = _prepared_builder(name, data_dir)
    image, label = _image_and_label(builder, name)
    splits = builder.info.splits
    test_name = _TEST_SPLITS.get(builder.name, "test" if "test" in splits else "validation")
    for split in ("train", test_name):
        if split not in splits or not splits[split].num_examples:
            raise DataError(f"--dataset={name} has no examples in its {split} split; prepare it anew with tfds build.")
    names = tuple(builder.info.features[label].names or map(str, range(builder.info.features[label].num_classes)))
    shape = builder.info.features[image].shape
    size = None not in shape and sum(s.num_examples for s in splits.values()) * np.prod(shape)
    if size and size <= MEMORY_LIMIT_BYTES and (not image_size or shape[:2] == (image_size, image_size)):
        train, test = (_tfds_arrays(builder, split, image, label) for split in ("train", test_name))
        return split_arrays(train, test, validation_split, max_train_examples, seed, names)
    total = splits["train"].num_examples
    held_out = num_held_out(total, validation_split)
    first = int(np.random.default_rng(seed).integers(total - held_out + 1))
    parts = {
        "train": [(0, first), (first + held_out, total)],
        "validation": [(first, first + held_out)],
    }
    if max_train_examples:
        parts["train"] = _first_of(parts["train"], max_train_examples)

    # Alone, the two features take a third of the time of all that a record holds.
    features = {image: tf.io.FixedLenFeature((), tf.string), label: tf.io.FixedLenFeature((), tf.int64)}

    def parse(record):
        example = tf.io.parse_single_example(record, features)
        return example[image], example[label]

    def stream(split, ranges):
        instructions = [
            instruction
            for start, stop in ranges
            if stop > start
            for instruction in builder.info.splits[f"{split}[{start}:{stop}]"].file_instructions
        ]
        return EncodedExamples(
            lambda order_seed: _read_shards(instructions, order_seed),
            parse,
            sum(stop - start for start, stop in ranges),
            len(names),
            image_size or DEFAULT_IMAGE_SIZE,
        )

    return Splits(
        stream("train", parts["train"]),
        stream("train", parts["validation"]) if held_out else None,
        stream(test_name, [(0, splits[test_name].num_examples)]),
        names,
    )


def _first_of(ranges, count):
    kept = []
    for start, stop in ranges:
        kept.append((start, min(stop, start + count)))
        count -= kept[-1][1] - start
    return kept


def _prepared_builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    if data_dir and not pathlib.Path(data_dir).expanduser().is_dir():
        raise DataError(f"--data_dir={data_dir} does not exist; give the directory that holds the prepared datasets.")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"--dataset={name} is not digits, folder:PATH or a dataset that TFDS knows ({_first_line(error)})."
        ) from error
    except Exception as error:
        # Whatever reads the dataset's description fails in its own way.
        raise DataError(
            f"--dataset={name} in --data_dir={data_dir} is damaged ({_first_line(error)}); prepare it anew."
        ) from error
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            if builder.name == "imagenet2012":
                manual = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "downloads" / "manual"
                raise DataError(
                    f"--dataset={name} is not prepared in {builder.data_dir}; put ILSVRC2012_img_train.tar and "
                    f"ILSVRC2012_img_val.tar from image-net.org into {manual} and start again, or give --data_dir."
                ) from error
            raise DataError(
                f"--dataset={name} is not prepared in {builder.data_dir} and could not be downloaded "
                f"({_first_line(error)}); give --data_dir or TFDS_DATA_DIR."
            ) from error
    return builder


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _image_and_label(builder, name):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    if keys and len(keys) == 2:
        image, label = keys
        features = builder.info.features
        if isinstance(features[image], tfds.features.Image) and isinstance(features[label], tfds.features.ClassLabel):
            return image, label
    raise DataError(f"--dataset={name} is not an image classification dataset; choose one with images and labels.")


def _tfds_arrays(builder, split, image, label):
    batches = builder.as_dataset(split=split, batch_size=_READ_BATCH, shuffle_files=False).prefetch(2)
    parts = [(batch[image].numpy(), batch[label].numpy()) for batch in batches]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArrayExamples(images, labels.astype(np.int32), builder.info.features[label].num_classes)


def _read_shards(instructions, order_seed):
    """The records of TFRecord shards, several read at a time; the seed shuffles shards, and records in a buffer."""
    files = tf.constant([instruction.filename for instruction in instructions])
    skips = tf.constant([instruction.skip for instruction in instructions], tf.int64)
    takes = tf.constant([instruction.take for instruction in instructions], tf.int64)
    indices = tf.range(len(instructions))
    if order_seed is not None:
        indices = tf.random.experimental.stateless_shuffle(indices, seed=order_seed)

    parallel = _PARALLEL_SHARDS if order_seed is not None else 1
    records = tf.data.Dataset.from_tensor_slices(indices).interleave(
        lambda index: tf.data.TFRecordDataset(files[index]).skip(skips[index]).take(takes[index]),
        cycle_length=parallel,
        num_parallel_calls=parallel,
    )
    if order_seed is None:
        return records

    def shuffled(seed):
        # Dataset.shuffle joins the process's seed to its own; this one is of the graph of this function alone.
        tf.random.set_seed(1)
        return records.shuffle(_SHUFFLE_BUFFER, seed, reshuffle_each_iteration=False)

    seed = tf.cast(tf.random.fold_in(order_seed, 0)[0], tf.int64)
    return tf.data.Dataset.from_tensors(seed).flat_map(shuffled)
