"""How a global batch is divided among the replicas of a distribution strategy.

Replica r of R takes the examples from r * b // R to (r + 1) * b // R of a global batch of b, so that the same examples
make up a batch on one device and on several, and sizes differ by one at most.
"""

import dataclasses

import tensorflow as tf

from iterand_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """A worker's part of each global batch: `count` of all workers' replicas, from number `first` on."""

    num_replicas: int = 1
    first: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether the worker has all replicas."""
        return self.count == self.num_replicas

    def bounds(self, size: tf.Tensor, replica: int) -> tuple[tf.Tensor, tf.Tensor]:
        """First and last (exclusive) example of a replica in a global batch of `size` examples."""
        return replica * size // self.num_replicas, (replica + 1) * size // self.num_replicas

    def span(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same of all of the worker's replicas; at least one example."""
        first_of_last, last = self.bounds(size, self.first + self.count - 1)
        return self.bounds(size, self.first)[0], tf.maximum(last, first_of_last + 1)

    def cut(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The worker's span of each global batch, a pair of images and labels."""
        if self.is_whole:
            return batches

        def span_of(images, labels):
            first, last = self.span(tf.shape(labels)[0])
            return images[first:last], labels[first:last]

        return batches.map(span_of)

    def split(
        self, spans: tf.data.Dataset, num_examples: int, batch_size: int, first_batch: int, weighted: bool
    ) -> tf.data.Dataset:
        """Divides the worker's span of each global batch, beginning with an epoch's `first_batch`, among its replicas.

        Where replicas have examples of unequal number, the mean of their mean losses is not the loss of the global
        batch; `weighted` adds the sample weights that make it so. A replica that has none gets one of weight zero.
        """
        if self.num_replicas == 1:
            return spans
        batches_per_epoch = num_batches(num_examples, batch_size)

        def pieces(number, span):
            images, labels = span
            size = size_of_batch(number % batches_per_epoch, batch_size, num_examples)
            offset, _ = self.span(size)

            def piece(replica):
                first, last = self.bounds(size, replica)
                part = slice(first - offset, tf.maximum(last, first + 1) - offset)
                weight = tf.cast(self.num_replicas * (last - first) / size, tf.float32)
                weights = tf.fill([tf.shape(labels[part])[0]], weight)
                return (images[part], labels[part], weights) if weighted else (images[part], labels[part])

            return tf.data.Dataset.range(self.first, self.first + self.count).map(piece)

        return spans.enumerate(first_batch).flat_map(pieces)

    def evaluation_batch_size(self, num_examples: int, batch_size: int) -> int:
        """The largest batch size up to `batch_size` that leaves no replica without examples, or a UserError.

        Example:

        >>> Shard(num_replicas=4).evaluation_batch_size(33, 16)
        14
        """
        for size in range(batch_size, self.num_replicas - 1, -1):
            if num_examples % size == 0 or num_examples % size >= self.num_replicas:
                return size
        raise UserError(
            f"{num_examples} examples to evaluate in batches of {batch_size} cannot be divided among "
            f"{self.num_replicas} replicas; use fewer devices, or hold out more by --validation_split."
        )


def num_batches(num_examples: int, batch_size: int) -> int:
    """Global batches of an epoch: the last one may be short."""
    return -(-num_examples // batch_size)


def size_of_batch(number: tf.Tensor, batch_size: int, num_examples: int) -> tf.Tensor:
    """Examples of the global batch `number` of an epoch."""
    return tf.minimum(tf.cast(batch_size, tf.int64), num_examples - number * batch_size)
