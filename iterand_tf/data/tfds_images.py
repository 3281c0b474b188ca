"""Image classification datasets of TensorFlow Datasets."""

import contextlib
import dataclasses
import math
import os
import pathlib
from typing import Any, Self

import numpy as np
import tensorflow as tf

from iterand_tf.data import splits as splits_lib
from iterand_tf.data.examples import ArrayExamples, EncodedExamples
from iterand_tf.data.splits import (
    DEFAULT_IMAGE_SIZE,
    EvaluationSplit,
    Source,
    Splits,
    check_labels,
    held_out_note,
    memory_notes,
    num_held_out,
    split_arrays,
    square_size,
    stratified_indices,
    validation_indices,
)
from iterand_tf.errors import DataError, first_line

_READ_BATCH = 1000
# Records that are shuffled at a time.
_SHUFFLE_BUFFER = 2048
_PARALLEL_SHARDS = 16
# Datasets whose split named test has no labels.
_UNLABELLED_TEST = ("imagenet2012",)


def load_tfds(
    name: str,
    data_dir: str,
    image_size: int,
    validation_split: float,
    test_split: float,
    max_train_examples: int,
    seed: int,
) -> Splits:
    """A TFDS image classification dataset; prepared data is used, anything else is downloaded.

    A validation part that stands beside a test part is used to validate on. Where the dataset has neither, a part of
    each class is held out to test on. Images of one size that fit in memory are decoded once; others are decoded as
    they are read.

    Raises:
        DataError: if there is no such dataset, or it is not one of labelled images.
    """
    stored = _Stored.open(name, data_dir)
    fits, notes = stored.fits_in_memory(image_size)
    image_size = 0 if fits else image_size or stored.square_size
    sources = {part: stored.source(part) for part in stored.parts}
    test_indices = None
    if "test" not in stored.parts:
        train_indices, test_indices = stratified_indices(stored.labels("train"), test_split)
        notes.append(held_out_note(len(test_indices), test_split))
    if fits:
        train = stored.arrays("train")
        test = stored.arrays("test") if test_indices is None else train.take(test_indices)
        validation = stored.arrays("validation") if "validation" in stored.parts else None
        train = train if test_indices is None else train.take(train_indices)
        train, validation = split_arrays(train, validation, validation_split, max_train_examples, seed)
        return Splits(test, stored.class_names, sources, train, validation, image_size, tuple(notes))
    if test_indices is not None:
        chosen, held_out = validation_indices(len(train_indices), validation_split, max_train_examples, seed)
        streams = (
            stored.stream_of(test_indices, image_size),
            stored.stream_of(train_indices[chosen], image_size),
            stored.stream_of(train_indices[held_out], image_size) if len(held_out) else None,
        )
    else:
        streams = stored.streams(image_size, validation_split, max_train_examples, seed)
    test_stream, train_stream, validation_stream = streams
    return Splits(test_stream, stored.class_names, sources, train_stream, validation_stream, image_size, tuple(notes))


def load_tfds_test(name: str, data_dir: str, image_size: int, test_split: float) -> EvaluationSplit:
    """The images to test on, as `load_tfds` chooses them; its other images are not read where it brings a test part.

    Args:
        name: of the dataset.
        data_dir: TFDS root.
        image_size: the `image_size` of the `Splits` of `load_tfds`.
        test_split: fraction held out where the dataset brings no test part.
    """
    stored = _Stored.open(name, data_dir)
    if "test" in stored.parts:
        test = stored.whole_stream("test", image_size) if image_size else stored.arrays("test")
        return EvaluationSplit(test, stored.class_names, {"test": stored.source("test")})
    _, indices = stratified_indices(stored.labels("train"), test_split)
    test = stored.stream_of(indices, image_size) if image_size else stored.arrays("train").take(indices)
    return EvaluationSplit(test, stored.class_names, {"train": stored.source("train")})


_Streams = tuple[EncodedExamples, EncodedExamples, EncodedExamples | None]


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A prepared dataset.

    Args:
        builder: TFDS's.
        image: key of the images in its examples.
        label: key of the labels.
        parts: by "train", "test" and "validation", the names of its splits that are used so.
    """

    builder: Any
    image: str
    label: str
    parts: dict[str, str]

    @classmethod
    def open(cls, name: str, data_dir: str) -> Self:
        builder = _prepared_builder(name, data_dir)
        image, label = _image_and_label(builder, name)
        splits = {split for split, info in builder.info.splits.items() if info.num_examples}
        if "train" not in splits:
            raise DataError(f"--dataset={name} has no examples in its train split; choose a dataset that has some.")
        parts = {"train": "train"}
        without_labels = builder.name in _UNLABELLED_TEST
        if "test" in splits and not without_labels:
            parts["test"] = "test"
            if "validation" in splits:
                parts["validation"] = "validation"
        elif "validation" in splits:
            parts["test"] = "validation"
        return cls(builder, image, label, parts)

    @property
    def class_names(self) -> tuple[str, ...]:
        feature = self.builder.info.features[self.label]
        return tuple(feature.names or map(str, range(feature.num_classes)))

    def source(self, part: str) -> Source:
        num_examples = self.builder.info.splits[self.parts[part]].num_examples
        return Source.of_names([self.builder.info.full_name.encode(), self.parts[part].encode()], num_examples)

    @property
    def square_size(self) -> int:
        """Pixels of the square that images become where they are decoded as they are read."""
        shape = self.builder.info.features[self.image].shape
        return DEFAULT_IMAGE_SIZE if None in shape else square_size(shape)

    def fits_in_memory(self, image_size: int) -> tuple[bool, list[str]]:
        """Whether images are decoded once, and the note if that is for their size alone."""
        shape = self.builder.info.features[self.image].shape
        if None in shape or (image_size and shape[:2] != (image_size, image_size)):
            return False, []
        size = sum(self.builder.info.splits[name].num_examples for name in self.parts.values()) * math.prod(shape)
        return size <= splits_lib.MEMORY_LIMIT_BYTES, memory_notes(size, image_size or self.square_size)

    def arrays(self, part: str) -> ArrayExamples:
        import tensorflow_datasets as tfds

        # One shard after the other, as `labels` reads them.
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        batches = self.builder.as_dataset(
            split=self.parts[part], batch_size=_READ_BATCH, shuffle_files=False, read_config=in_order
        )
        pairs = [(batch[self.image].numpy(), batch[self.label].numpy()) for batch in batches.prefetch(2)]
        images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        examples = ArrayExamples(images, labels.astype(np.int32), len(self.class_names))
        check_labels(examples)
        return examples

    def labels(self, part: str) -> np.ndarray:
        """All labels in the stored order; images are not decoded."""
        records = _read_shards(self._instructions(self.parts[part]), None)
        labels = records.map(lambda record: self._parse(record)[1], tf.data.AUTOTUNE).batch(_READ_BATCH)
        return np.concatenate(list(labels.as_numpy_iterator()))

    def whole_stream(self, part: str, image_size: int) -> EncodedExamples:
        split = self.parts[part]
        return self._stream(split, self.builder.info.splits[split].num_examples, image_size)

    def stream_of(self, indices: np.ndarray, image_size: int) -> EncodedExamples:
        """The training examples at `indices`."""
        chosen = np.zeros(self.builder.info.splits["train"].num_examples, bool)
        chosen[indices] = True
        return self._stream("train", len(indices), image_size, chosen)

    def streams(self, image_size: int, validation_split: float, max_train_examples: int, seed: int) -> _Streams:
        """Test, training and validation examples; the validation part is a range of the stored order if it is cut."""
        test, validation = self.whole_stream("test", image_size), None
        total = self.builder.info.splits["train"].num_examples
        first = held_out = 0
        if "validation" in self.parts:
            validation = self.whole_stream("validation", image_size)
        elif held_out := num_held_out(total, validation_split):
            first = int(np.random.default_rng(seed).integers(total - held_out + 1))
            validation = self._stream(f"train[{first}:{first + held_out}]", held_out, image_size)
        ranges = _first_of([(0, first), (first + held_out, total)], max_train_examples or total)
        split = "+".join(f"train[{start}:{stop}]" for start, stop in ranges if stop > start)
        return test, self._stream(split, sum(stop - start for start, stop in ranges), image_size), validation

    def _stream(self, split, num_examples, image_size, chosen=None):
        instructions = self._instructions(split)
        return EncodedExamples(
            lambda order_seed: _read_shards(instructions, order_seed, chosen),
            self._parse,
            num_examples,
            len(self.class_names),
            image_size,
        )

    def _instructions(self, split):
        return self.builder.info.splits[split].file_instructions

    def _parse(self, record):
        # Alone, the two features take a third of the time of all that a record holds.
        features = {
            self.image: tf.io.FixedLenFeature((), tf.string),
            self.label: tf.io.FixedLenFeature((), tf.int64),
        }
        example = tf.io.parse_single_example(record, features)
        return example[self.image], example[self.label]


def _first_of(ranges, count):
    kept = []
    for start, stop in ranges:
        kept.append((start, min(stop, start + count)))
        count -= kept[-1][1] - start
    return kept


def _prepared_builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

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
    return builder


def _remove_empty_folders(top):
    """Removes what TFDS has made below a folder, and the folder itself, where there are no files in it."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _image_and_label(builder, name):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    if keys and len(keys) == 2:
        image, label = keys
        features = builder.info.features
        if isinstance(features[image], tfds.features.Image) and isinstance(features[label], tfds.features.ClassLabel):
            return image, label
    raise DataError(f"--dataset={name} is not an image classification dataset; choose one with images and labels.")


def _read_shards(instructions, order_seed, chosen=None):
    """The records of TFRecord shards, several read at a time; the seed shuffles shards, and records in a buffer.

    Args:
        instructions: TFDS's, for the shards.
        order_seed: integer tensor of shape (2,), or None for the stored order.
        chosen: boolean array, by number in the stored order of all of the shards' records which to read; None for all.
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
