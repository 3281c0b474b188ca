"""Datasets from scikit-learn, TFDS and folders, made here where no real one is needed."""

import pathlib
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from iterand_tf import data
from iterand_tf.data import splits
from iterand_tf.data.tfds_images import read_records
from iterand_tf.errors import DataError

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "tfds"
needs_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not beside the project")


def all_of(batches):
    images, labels = zip(*[(images.numpy(), labels.numpy()) for images, labels in batches], strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 12x10 images, told apart by their colour; 6 training and 3 test images a class."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                image = (draw.integers(0, 100, (12, 10, 3)) + 150 * label).astype(np.uint8)
                tf.io.write_file(str(tmp_path / split / name / f"{index}.png"), tf.io.encode_png(image))
    return tmp_path


def test_digits_are_complete_and_split_by_the_seed():
    one, again, other = (data.load("digits", validation_split=0.2, seed=seed) for seed in (1, 1, 2))
    assert (one.train.num_examples, one.validation.num_examples, one.test.num_examples) == (1150, 287, 360)
    np.testing.assert_array_equal(one.validation.images, again.validation.images)
    assert (one.validation.labels != other.validation.labels).any()
    np.testing.assert_array_equal(one.test.labels, other.test.labels)
    images = np.concatenate([one.train.images, one.validation.images, one.test.images])
    assert images.shape == (1797, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)


def test_no_validation_and_fewer_examples():
    splits = data.load("digits", validation_split=0.0, max_train_examples=100)
    assert splits.validation is None
    assert splits.train.num_examples == 100


def test_folder_of_one_size(folder):
    splits = data.load(f"folder:{folder}", validation_split=0.25)
    assert splits.class_names == ("cat", "dog")
    assert (splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples) == (9, 3, 6)
    assert splits.train.image_shape == (12, 10, 3)
    images, labels = all_of(splits.test.evaluation_batches(4))
    assert labels.argmax(1).tolist() == [0, 0, 0, 1, 1, 1]
    assert (images.mean((1, 2, 3)) > 125).tolist() == [False] * 3 + [True] * 3


def test_folder_with_an_image_size_is_decoded_as_it_is_read(folder):
    splits = data.load(f"folder:{folder}", validation_split=0.25, image_size=16)
    assert splits.train.image_shape == (16, 16, 3)
    assert (splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples) == (9, 3, 6)
    images, labels = all_of(splits.test.evaluation_batches(4))
    assert images.shape == (6, 16, 16, 3)
    assert (images.mean((1, 2, 3)) > 125).tolist() == labels.argmax(1).astype(bool).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "mixup"])
def test_streams_train_in_seeded_epochs(folder, augmentation):
    train = data.load(f"folder:{folder}", validation_split=0.0, image_size=16).train
    images, labels = all_of(train.training_batches(5, augmentation, seed=1, first_epoch=0, epochs=2))
    assert images.shape == (24, 16, 16, 3)
    assert labels[:12].sum(0).tolist() == pytest.approx([6, 6], abs=2 if augmentation == "mixup" else 0)
    if augmentation != "mixup":
        again, _ = all_of(train.training_batches(5, augmentation, seed=1, first_epoch=1, epochs=2))
        np.testing.assert_array_equal(again, images[12:])
        assert (labels[:12] != labels[12:]).any()


def _remove(folder, pattern):
    for file in folder.glob(pattern):
        file.unlink()


def _write(folder, name, size=(12, 10)):
    tf.io.write_file(str(folder / name), tf.io.encode_png(np.zeros((*size, 3), np.uint8)))


BROKEN_FOLDERS = {
    "no such folder": (lambda folder: None, "needs images in"),
    "no training images": (lambda folder: _remove(folder, "train/*/*"), "holds no image"),
    "no test images": (lambda folder: _remove(folder, "test/*/*"), "holds no image"),
    "new class in test": (lambda folder: _write(folder, "test/bird/0.png"), "a class that the train folder does not"),
    "another size": (lambda folder: _write(folder, "train/cat/9.png", (7, 7)), "7x7 pixels, others 12x10"),
    "one class": (
        lambda folder: [shutil.rmtree(path) for path in folder.glob("*/dog")],
        "has one class",
    ),
    "no image": (lambda folder: (folder / "train/dog/x.png").write_text("hello"), "x.png cannot be decoded"),
}


@pytest.mark.parametrize("name", BROKEN_FOLDERS)
def test_broken_folders_are_refused_in_one_sentence(folder, name):
    break_it, sentence = BROKEN_FOLDERS[name]
    break_it(folder)
    with pytest.raises(DataError, match=sentence):
        data.load(f"folder:{folder / 'nowhere' if name == 'no such folder' else folder}")


def test_labels_outside_the_class_range_are_refused():
    examples = data.ArrayExamples(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 2, 7]), num_classes=3)
    with pytest.raises(DataError, match="label 7 is outside the class range 0 to 2"):
        splits.check_labels(examples)
    encoded = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8))
    for label in (-1, 7):
        dataset = tf.data.Dataset.from_tensors((encoded, label))
        stream = data.EncodedExamples(lambda seed, dataset=dataset: dataset, lambda pair: pair, 1, 3, image_size=4)
        with pytest.raises(tf.errors.InvalidArgumentError, match="outside the class range"):
            list(stream.evaluation_batches(1))


def test_nothing_left_to_train_on_is_refused(folder):
    with pytest.raises(DataError, match="nothing is left to train on"):
        data.load(f"folder:{folder}", validation_split=0.99)


@pytest.mark.parametrize(
    ("name", "data_dir", "sentence"),
    [
        ("no_such_dataset", "", "is not digits, folder:PATH or a dataset that TFDS knows"),
        ("cifar10", "nowhere", "does not exist"),
    ],
)
def test_unknown_datasets_are_refused(name, data_dir, sentence):
    with pytest.raises(DataError, match=sentence):
        data.load(name, data_dir)


def test_tfds_dataset_that_is_not_prepared(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    with pytest.raises(
        DataError, match=r"mnist is not prepared in .* could not be downloaded or prepared \(no route to host\)"
    ):
        data.load("mnist", str(tmp_path))


def test_shards_are_read_in_an_order_of_the_seed_alone(tmp_path):
    instructions = []
    for shard in range(3):
        path = str(tmp_path / f"{shard}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(20):
                writer.write(str(20 * shard + number).encode())
        instructions.append(types.SimpleNamespace(filename=path, skip=2, take=10))

    def read(seed, process_seed):
        tf.random.set_seed(process_seed)
        records = read_records(instructions, seed and tf.constant(seed, tf.int64))
        return [int(record) for record in records.as_numpy_iterator()]

    stored = [20 * shard + number for shard in range(3) for number in range(2, 12)]
    assert read(None, 0) == stored
    order, other = read([0, 1], 0), read([0, 2], 0)
    assert sorted(order) == sorted(other) == stored
    assert order != other
    assert order == read([0, 1], 5)


@needs_shared_data
def test_cifar10_is_decoded_once():
    splits = data.load("cifar10", str(SHARED), max_train_examples=1000)
    assert (splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples) == (1000, 5000, 10000)
    assert splits.train.image_shape == (32, 32, 3)
    assert len(splits.class_names) == splits.train.num_classes == 10
    labels = np.bincount(splits.test.labels)
    assert labels.tolist() == [1000] * 10


@needs_shared_data
def test_imagenet_is_decoded_as_it_is_read():
    splits = data.load("imagenet2012", str(SHARED), validation_split=0.1, image_size=64, seed=3)
    assert (splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples) == (360, 40, 100)
    assert splits.train.num_classes == 1000
    images, labels = all_of(splits.train.training_batches(100, "crop_flip", seed=1, first_epoch=0, epochs=1))
    assert images.shape == (360, 64, 64, 3)
    assert 0 <= images.min() < images.max() <= 255
    held_out = all_of(splits.validation.evaluation_batches(16))[1]
    whole = all_of(data.load("imagenet2012", str(SHARED), 0.0, image_size=64).train.evaluation_batches(100))[1]
    np.testing.assert_array_equal(whole.sum(0), labels.sum(0) + held_out.sum(0))
