"""Batches: complete, in order where they should be, functions of the seed and the epoch."""

import itertools

import numpy as np
import pytest

from iterand_tf.data import ArrayExamples

COUNT, BATCH = 21, 8
EXAMPLES = ArrayExamples(
    np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8), np.arange(COUNT) % 3, 3
)


def numbers(batches):
    return [images[:, 0, 0, 0].numpy().astype(int).tolist() for images, _ in batches]


def test_evaluation_is_in_order_and_complete():
    batches = list(EXAMPLES.evaluation_batches(BATCH))
    assert [len(images) for images, _ in batches] == [8, 8, 5]
    assert list(itertools.chain(*numbers(batches))) == list(range(COUNT))
    labels = np.concatenate([labels.numpy().argmax(1) for _, labels in batches])
    np.testing.assert_array_equal(labels, EXAMPLES.labels)


def test_every_epoch_is_complete_and_has_its_own_order():
    batches = numbers(EXAMPLES.training_batches(BATCH, "none", seed=5, first_epoch=0, epochs=3))
    assert [len(batch) for batch in batches] == [8, 8, 5] * 3
    epochs = [list(itertools.chain(*batches[3 * epoch : 3 * epoch + 3])) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert numbers(EXAMPLES.training_batches(BATCH, "none", seed=6, first_epoch=0, epochs=1)) != batches[:3]


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_a_resumed_epoch_has_the_batches_of_the_uninterrupted_run(augmentation):
    whole = list(EXAMPLES.training_batches(BATCH, augmentation, seed=5, first_epoch=0, epochs=3))
    resumed = list(EXAMPLES.training_batches(BATCH, augmentation, seed=5, first_epoch=2, epochs=3))
    for (images, labels), (again, labels_again) in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)


def test_labels_go_with_their_images():
    for images, labels in EXAMPLES.training_batches(BATCH, "none", seed=0, first_epoch=0, epochs=1):
        np.testing.assert_array_equal(labels.numpy().argmax(1), images[:, 0, 0, 0].numpy().astype(int) % 3)
