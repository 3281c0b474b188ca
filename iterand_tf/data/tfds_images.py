"""Image classification datasets of TensorFlow Datasets."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples
from iterand_tf.data.splits import Source, Stored, check_labels, num_held_out
from iterand_tf.errors import DataError, first_line

_READ_BATCH = 1000
# Datasets whose split named test has no labels.
_UNLABELLED_TEST = ("imagenet2012",)
# Records that are shuffled at a time.
_SHUFFLE_BUFFER = 2048
_PARALLEL_SHARDS = 16


def open_tfds(name: str, data_dir: str) -> Stored:
    """A TFDS image classification dataset; prepared data is used, anything else is downloaded.

    A validation part that stands beside a test part is used to validate on, one without it to test on.
    """
    builder = _prepared_builder(name, data_dir)
    image, label = _image_and_label(builder, name)
    splits = {split for split, info in builder.info.splits.items() if info.num_examples}
    if "train" not in splits:
        raise DataError(f"--dataset={name} has no examples in its train split; choose a dataset that has some.")
    names = {"train": "train"}
    without_labels = builder.name in _UNLABELLED_TEST
    if "test" in splits and not without_labels:
        names["test"] = "test"
        if "validation" in splits:
            names["validation"] = "validation"
    elif "validation" in splits:
        names["test"] = "validation"
    feature = builder.info.features[label]
    class_names = tuple(feature.names or map(str, range(feature.num_classes)))
    parts = {}
    for part, split in names.items():
        decoded = functools.cache(functools.partial(_decoded, builder, split, image, label))
        parts[part] = _Part(builder, image, label, split, decoded)
    return _StoredByTfds(class_names, parts)


def _prepared_builder(name, data_dir):
    """TFDS's builder of a dataset, which is downloaded and prepared if it is not yet."""
    if "[" in name:
        raise DataError(
            f"--dataset={name} names a part of a dataset; give the dataset's name alone, and choose parts by "
            "--validation_split, --test_split and --max_train_examples."
        )
    if data_dir and not tf.io.gfile.isdir(os.path.expanduser(data_dir)):
        raise DataError(f"--data_dir={data_dir} does not exist; give the directory that holds the prepared datasets.")
    try:
        builder = tfds.builder(name, data_dir=os.path.expanduser(data_dir) or None, file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"--dataset={name} is not digits, folder:PATH or a dataset that TFDS knows ({first_line(error)})."
        ) from error
    except Exception as error:
        # Whatever reads the dataset's description fails in its own way.
        raise DataError(
            f"--dataset={name} in --data_dir={data_dir} is damaged ({first_line(error)}); prepare it anew."
        ) from error
    if not builder.is_prepared():
        _prepare(builder, name, data_dir)
    return builder


def _prepare(builder, name, data_dir):
    root = pathlib.Path(os.path.expanduser(data_dir) or tfds.core.constants.DATA_DIR)
    manual = root / "downloads" / "manual"
    if builder.name == "imagenet2012" and not (manual / "ILSVRC2012_img_train.tar").exists():
        raise DataError(
            f"--dataset={name} is not prepared in {builder.data_dir}; put ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar from image-net.org into {manual} and start again, or give --data_dir."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        _remove_empty_folders(root / "downloads")
        _remove_empty_folders(root / builder.name)
        raise DataError(
            f"--dataset={name} is not prepared in {builder.data_dir} and could not be downloaded or prepared "
            f"({first_line(error)}); give --data_dir or TFDS_DATA_DIR."
        ) from error


def _remove_empty_folders(top):
    """Removes what TFDS has made below a folder, and the folder itself, where there are no files in it."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _image_and_label(builder, name):
    """The keys of images and labels in the examples; DataError if they are something else."""
    keys = builder.info.supervised_keys
    if keys and len(keys) == 2:
        image, label = keys
        features = builder.info.features
        if isinstance(features[image], tfds.features.Image) and isinstance(features[label], tfds.features.ClassLabel):
            return image, label
    raise DataError(f"--dataset={name} is not an image classification dataset; choose one with images and labels.")


class _StoredByTfds(Stored):
    def _hold_out(self, train, validation_split, max_train_examples, seed, as_read):
        """Where images are decoded as they are read, a range of the stored order is held out."""
        if not as_read or "test" not in self.parts:
            return super()._hold_out(train, validation_split, max_train_examples, seed, as_read)
        total = train.num_examples
        held_out = num_held_out(total, validation_split)
        start = int(np.random.default_rng(seed).integers(total - held_out + 1)) if held_out else 0
        stop, most = start + held_out, max_train_examples or total
        before = min(start, most)
        ranges = [(0, before), (stop, min(stop + most - before, total))]
        split = "+".join(f"train[{first}:{last}]" for first, last in ranges if last > first)
        validation = dataclasses.replace(train, split=f"train[{start}:{stop}]") if held_out else None
        return dataclasses.replace(train, split=split), validation


@dataclasses.dataclass(frozen=True)
class _Part:
    """Examples of a prepared dataset.

    Args:
        split: in TFDS's language.
        decoded: gives all of the split's examples, reading them once.
        indices: which of the split's examples, in the stored order; None for all.
    """

    builder: Any
    image: str
    label: str
    split: str
    decoded: Callable[[], ArrayExamples]
    indices: np.ndarray | None = None

    @property
    def _info(self):
        return self.builder.info.splits[self.split]

    @property
    def num_examples(self) -> int:
        return self._info.num_examples if self.indices is None else len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """All labels of the split; images are not decoded."""
        records = read_records(self._info.file_instructions, None)
        labels = records.map(lambda record: self._parse(record)[1], tf.data.AUTOTUNE).batch(_READ_BATCH)
        return np.concatenate(list(labels.as_numpy_iterator()))

    def source(self) -> Source:
        return Source.of_names([self.builder.info.full_name.encode(), self.split.encode()], self.num_examples)

    def take(self, indices: np.ndarray) -> Self:
        return dataclasses.replace(self, indices=indices if self.indices is None else self.indices[indices])

    def shape_to_keep(self, image_size: int) -> tuple[int, int, int] | None:
        shape = self.builder.info.features[self.image].shape
        return None if None in shape or (image_size and shape[:2] != (image_size, image_size)) else shape

    def examples(self, num_classes: int, image_size: int, shape: Any) -> Examples:
        if not image_size:
            return self.decoded() if self.indices is None else self.decoded().take(self.indices)
        instructions, chosen = self._info.file_instructions, None
        if self.indices is not None:
            chosen = np.zeros(self._info.num_examples, bool)
            chosen[self.indices] = True
        return EncodedExamples(
            lambda order_seed: read_records(instructions, order_seed, chosen),
            self._parse,
            self.num_examples,
            num_classes,
            image_size,
        )

    def _parse(self, record):
        # Alone, the two features take a third of the time of all that a record holds.
        features = {
            self.image: tf.io.FixedLenFeature((), tf.string),
            self.label: tf.io.FixedLenFeature((), tf.int64),
        }
        example = tf.io.parse_single_example(record, features)
        return example[self.image], example[self.label]


def _decoded(builder, split, image, label):
    # One shard after the other, as `labels` reads them.
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    batches = builder.as_dataset(split=split, batch_size=_READ_BATCH, shuffle_files=False, read_config=in_order)
    pairs = [(batch[image].numpy(), batch[label].numpy()) for batch in batches.prefetch(2)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    examples = ArrayExamples(images, labels.astype(np.int32), builder.info.features[label].num_classes)
    check_labels(examples)
    return examples


def read_records(
    instructions: Sequence[Any], order_seed: tf.Tensor | None, chosen: np.ndarray | None = None
) -> tf.data.Dataset:
    """The records of TFRecord files, several read at a time; the seed shuffles files, and records in a buffer.

    Without a seed they come in the stored order. `chosen` says for each record in that order whether to read it.
    """
    files = tf.constant([instruction.filename for instruction in instructions])
    skips = tf.constant([instruction.skip for instruction in instructions], tf.int64)
    takes = tf.constant([instruction.take for instruction in instructions], tf.int64)
    if chosen is not None:
        sizes = [instruction.examples_in_shard for instruction in instructions]
        starts = tf.constant(np.cumsum([0, *sizes[:-1]]), tf.int64)
        is_chosen = tf.constant(chosen)
    indices = tf.range(len(instructions))
    if order_seed is not None:
        indices = tf.random.experimental.stateless_shuffle(indices, seed=order_seed)

    parallel = _PARALLEL_SHARDS if order_seed is not None else 1

    def read(index):
        records = tf.data.TFRecordDataset(files[index]).skip(skips[index]).take(takes[index])
        if chosen is None:
            return records
        numbered = records.enumerate(starts[index])
        return numbered.filter(lambda number, record: is_chosen[number]).map(lambda number, record: record)

    records = tf.data.Dataset.from_tensor_slices(indices).interleave(
        read,
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
