"""Image classification datasets of TensorFlow Datasets."""

import dataclasses
import math
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
from iterand_tf.data.tfds_builder import image_and_label, prepared_builder
from iterand_tf.data.tfrecords import read_records
from iterand_tf.errors import DataError

_READ_BATCH = 1000
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
        builder = prepared_builder(name, data_dir)
        image, label = image_and_label(builder, name)
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
        records = read_records(self._instructions(self.parts[part]), None)
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
            lambda order_seed: read_records(instructions, order_seed, chosen),
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
