"""Records of TFRecord files, in an order that is a function of a seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Records that are shuffled at a time.
_SHUFFLE_BUFFER = 2048
_PARALLEL_SHARDS = 16


def read_records(
    instructions: Sequence[Any], order_seed: tf.Tensor | None, chosen: np.ndarray | None = None
) -> tf.data.Dataset:
    """The records of TFRecord files, several read at a time; the seed shuffles files, and records in a buffer.

    Args:
        instructions: TFDS's, one a file: its name, and which records of it.
        order_seed: integer tensor of shape (2,), or None for the stored order.
        chosen: boolean array, by number in the stored order of all of the files' records which to read; None for all.
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
