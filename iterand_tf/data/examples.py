"""Sets of labelled images, and their batches: decoded in memory, or decoded as they are read.

A training batch is a function of (seed, epoch, number in the epoch), except for the draws of keras_cv's policies.
Batches are pairs of images in 0-255 and one-hot labels. Images are float32; where random crops are decoded as they are
read, uint8, a quarter of the bytes. Evaluation batches come in order and complete, the last short one included.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import tensorflow as tf

from iterand_tf.data.augmentation import centre_of_encoded, crop_flip, policy, random_crop_of_encoded, whole_of_encoded
from iterand_tf.data.shard import Shard, num_batches, size_of_batch

_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Images decoded at a time. They stay in order, so a large one would keep processors waiting if there were no more of
# them than processors; AUTOTUNE would begin with one.
DECODERS = 2 * _PROCESSORS
# Records and batches that are prepared before they are asked for.
_READ_AHEAD = 64
_BATCHES_AHEAD = 2
_WHOLE = Shard()


class Examples(Protocol):
    """Labelled images that can be trained and evaluated on."""

    @property
    def num_classes(self) -> int: ...

    @property
    def num_examples(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def training_batches(
        self,
        batch_size: int,
        augmentation: str,
        seed: int,
        first_epoch: int,
        epochs: int,
        first_batch: int = 0,
        shard: Shard = _WHOLE,
    ) -> tf.data.Dataset:
        """Shuffled and augmented batches of the epochs in [first_epoch, epochs); the first begins at `first_batch`.

        With a shard of several replicas, one batch after the other for each replica of the worker, with sample weights.
        """
        ...

    def evaluation_batches(self, batch_size: int, shard: Shard = _WHOLE) -> tf.data.Dataset:
        """All examples once, in order; with a shard, its replicas' batches."""
        ...

    def evaluation_image(self, encoded: tf.Tensor) -> tf.Tensor:
        """The float32 image, in 0-255, that evaluation would make of an encoded one, a scalar string."""
        ...


@dataclasses.dataclass(frozen=True)
class ArrayExamples:
    """Uint8 images decoded once and kept in memory, and a label in [0, num_classes) for each."""

    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    @property
    def num_examples(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def take(self, indices: np.ndarray) -> Self:
        """The examples at `indices`, in that order."""
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])

    def training_batches(self, batch_size, augmentation, seed, first_epoch, epochs, first_batch=0, shard=_WHOLE):
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        apply_policy = policy(augmentation, seed)

        def indices_of(epoch):
            indices = tf.data.Dataset.from_tensor_slices(_order(self.num_examples, epoch_seed(seed, epoch)))
            numbered = indices.batch(batch_size).enumerate().skip(_skipped(epoch, first_epoch, first_batch))
            return numbered.map(lambda number, batch: (epoch, number, batch))

        def load(epoch, number, indices):
            batch = tf.gather(images, indices)
            if augmentation == "none":
                batch = tf.cast(batch, tf.float32)
            else:
                batch = crop_flip(batch, item_seed(seed, epoch, number))
            return apply_policy(batch, tf.one_hot(tf.gather(labels, indices), self.num_classes))

        batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(indices_of).map(load, tf.data.AUTOTUNE)
        batches = shard.split(shard.cut(batches), self.num_examples, batch_size, first_batch, weighted=True)
        return batches.prefetch(tf.data.AUTOTUNE)

    def evaluation_batches(self, batch_size, shard=_WHOLE):
        batch_size = shard.evaluation_batch_size(self.num_examples, batch_size)
        batches = tf.data.Dataset.from_tensor_slices((self.images, self.labels)).batch(batch_size)
        batches = batches.map(
            lambda images, labels: (tf.cast(images, tf.float32), tf.one_hot(labels, self.num_classes))
        )
        batches = shard.split(shard.cut(batches), self.num_examples, batch_size, 0, weighted=False)
        return batches.prefetch(tf.data.AUTOTUNE)

    def evaluation_image(self, encoded):
        height, width, channels = self.image_shape
        return whole_of_encoded(encoded, (height, width), channels)


@dataclasses.dataclass(frozen=True)
class EncodedExamples:
    """Encoded images of any size, decoded, cropped and resized to a square as they are read.

    Training takes a random resized crop, and flips half of the images, when augmentation is asked for; otherwise the
    evaluation image, the centre.

    Args:
        read: function of an integer seed tensor of shape (2,), or of None for the stored order, that gives all
            records in an order that is a function of the seed.
        parse: function of a record that gives its encoded image and label.
    """

    read: Callable[[tf.Tensor | None], tf.data.Dataset]
    parse: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    num_examples: int
    num_classes: int
    image_size: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def training_batches(self, batch_size, augmentation, seed, first_epoch, epochs, first_batch=0, shard=_WHOLE):
        apply_policy = policy(augmentation, seed)
        # The epoch -1 keeps this key apart from those of the epochs' orders.
        crop_key = tf.cast(item_seed(seed, -1, 0)[0], tf.int64)

        def records_of(epoch):
            return self._records(epoch_seed(seed, epoch)).skip(_skipped(epoch, first_epoch, first_batch) * batch_size)

        def decode(index, encoded):
            if augmentation == "none":
                return self.evaluation_image(encoded)
            return random_crop_of_encoded(encoded, self.image_size, tf.stack([crop_key, index]))

        # The next epoch is read while this one is decoded.
        records = tf.data.Dataset.range(first_epoch, epochs).flat_map(records_of).prefetch(_READ_AHEAD)
        records = records.enumerate(first_epoch * self.num_examples + first_batch * batch_size)
        spans = self._spans(records, decode, batch_size, first_batch, shard)
        spans = spans.map(lambda images, labels: apply_policy(images, self._one_hot(labels)))
        return _ahead(shard.split(spans, self.num_examples, batch_size, first_batch, weighted=True))

    def evaluation_batches(self, batch_size, shard=_WHOLE):
        batch_size = shard.evaluation_batch_size(self.num_examples, batch_size)
        records = self._records(None).enumerate()
        spans = self._spans(records, lambda _, encoded: self.evaluation_image(encoded), batch_size, 0, shard)
        spans = spans.map(lambda images, labels: (images, self._one_hot(labels)))
        return _ahead(shard.split(spans, self.num_examples, batch_size, 0, weighted=False))

    def _records(self, order_seed):
        return self.read(order_seed).apply(tf.data.experimental.assert_cardinality(self.num_examples))

    def _spans(self, records, decode, batch_size, first_batch, shard):
        """Images and labels of each global batch; a worker decodes its own part of it only.

        The records of all epochs are numbered from 0; the first one begins the first epoch's batch `first_batch`.
        """

        def span(number):
            return shard.span(size_of_batch(number, batch_size, self.num_examples))

        def is_ours(index, record):
            number, position = index % self.num_examples // batch_size, index % self.num_examples % batch_size
            first, last = span(number)
            return (first <= position) & (position < last)

        if not shard.is_whole:
            records = records.filter(is_ours)
        first, last = span(tf.range(num_batches(self.num_examples, batch_size), dtype=tf.int64))
        # The sizes of the batches of each epoch, over and over.
        sizes = tf.roll(last - first, -first_batch, axis=0)

        def parse_and_decode(index, record):
            encoded, label = self.parse(record)
            return decode(index, encoded)[tf.newaxis], label[tf.newaxis]

        return records.map(parse_and_decode, DECODERS).rebatch(sizes)

    def evaluation_image(self, encoded):
        return centre_of_encoded(encoded, self.image_size)

    def _one_hot(self, labels):
        in_range = tf.reduce_all((labels >= 0) & (tf.cast(labels, tf.int64) < self.num_classes))
        with tf.control_dependencies([tf.debugging.Assert(in_range, ["a label is outside the class range:", labels])]):
            return tf.one_hot(labels, self.num_classes)


def _ahead(batches):
    """Has batches made ahead, without what would only cost time here: decoding alone keeps all processors busy."""
    options = tf.data.Options()
    # Images are decoded side by side, so no operation is divided among threads.
    options.threading.max_intra_op_parallelism = 1
    # Autotuning would measure every element.
    options.autotune.enabled = False
    return batches.prefetch(_BATCHES_AHEAD).with_options(options)


def _skipped(epoch, first_epoch, first_batch):
    """Batches of an epoch that were done before."""
    return tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), tf.constant(0, tf.int64))


def read_files(paths: np.ndarray, labels: np.ndarray, seed: tf.Tensor | None) -> tf.data.Dataset:
    """Dataset of (file contents, label), in a random order unless `seed` is None."""
    indices = tf.range(len(paths)) if seed is None else _order(len(paths), seed)
    all_paths, all_labels = tf.constant(paths), tf.constant(labels)
    return tf.data.Dataset.from_tensor_slices(indices).map(
        lambda index: (tf.io.read_file(all_paths[index]), all_labels[index]), tf.data.AUTOTUNE
    )


def epoch_seed(seed: int, epoch: int | tf.Tensor) -> tf.Tensor:
    """Seed tensor of an epoch's order."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])


def item_seed(seed: int, epoch: int | tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Seed tensor of what is drawn for one item of an epoch, such as a batch's augmentation."""
    return tf.random.fold_in(epoch_seed(seed, epoch), number)


def _order(count, seed):
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int32), seed=seed)
