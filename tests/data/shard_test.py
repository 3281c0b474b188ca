"""Global batches divided among replicas: together the same examples as on one device, and the same mean."""

import numpy as np
import pytest
import tensorflow as tf

from iterand_tf.data import ArrayExamples, EncodedExamples
from iterand_tf.data.shard import Shard
from iterand_tf.errors import UserError

COUNT, BATCH, EPOCHS = 13, 5, 2
IMAGES = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
ENCODED = [tf.io.encode_png(image).numpy() for image in IMAGES]


def read(seed):
    order = tf.range(COUNT)
    if seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, seed=seed)
    encoded = tf.constant(ENCODED)
    return tf.data.Dataset.from_tensor_slices(order).map(lambda index: (encoded[index], index))


EXAMPLES = {
    "arrays": ArrayExamples(IMAGES, np.arange(COUNT), COUNT),
    "encoded": EncodedExamples(read, lambda pair: pair, COUNT, COUNT, 8),
}
# A row has the number of replicas, and the first one and the number of those of each worker. The last batch of 3 leaves
# one of four replicas without examples.
SHARDS = [(2, [(0, 2)]), (2, [(0, 1), (1, 1)]), (4, [(0, 2), (2, 2)]), (4, [(0, 4)])]


@pytest.fixture(params=EXAMPLES)
def examples(request):
    return EXAMPLES[request.param]


def numpy(dataset):
    return [[tensor.numpy() for tensor in element] for element in dataset]


@pytest.mark.parametrize(("replicas", "workers"), SHARDS)
def test_parts_make_up_the_batches_of_one_device(examples, replicas, workers):
    whole = numpy(examples.training_batches(BATCH, "crop_flip", 0, 0, EPOCHS))
    parts = {}
    for first, count in workers:
        shard = Shard(replicas, first, count)
        batches = numpy(examples.training_batches(BATCH, "crop_flip", 0, 0, EPOCHS, shard=shard))
        assert len(batches) == len(whole) * count
        for number, batch in enumerate(batches):
            parts[number // count, first + number % count] = batch
    for number, (images, labels) in enumerate(whole):
        pieces = [parts[number, replica] for replica in range(replicas)]
        real = [piece for piece in pieces if piece[2].any()]
        np.testing.assert_array_equal(np.concatenate([piece[0] for piece in real]), images)
        np.testing.assert_array_equal(np.concatenate([piece[1] for piece in real]), labels)
        losses = [np.mean(piece_images[:, 0, 0, 0] * weights) for piece_images, _, weights in pieces]
        np.testing.assert_allclose(np.mean(losses), np.mean(images[:, 0, 0, 0]), rtol=1e-5)


@pytest.mark.parametrize(("replicas", "workers"), SHARDS[:2])
def test_evaluation_takes_every_example_once(examples, replicas, workers):
    labels = [
        label
        for first, count in workers
        for _, batch in numpy(examples.evaluation_batches(BATCH, Shard(replicas, first, count)))
        for label in batch.argmax(axis=1)
    ]
    assert sorted(labels) == list(range(COUNT))


def test_evaluation_refuses_what_it_cannot_divide(examples):
    with pytest.raises(UserError, match="13 examples to evaluate in batches of 5 cannot be divided among 4 replicas"):
        examples.evaluation_batches(BATCH, Shard(4, 0, 4))


def test_an_epoch_continues_at_its_next_batch(examples):
    whole = numpy(examples.training_batches(BATCH, "crop_flip", 0, 0, EPOCHS))
    rest = numpy(examples.training_batches(BATCH, "crop_flip", 0, 1, EPOCHS, first_batch=1))
    assert len(rest) == 2
    for batch, expected in zip(rest, whole[4:], strict=True):
        for tensor, other in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(tensor, other)
