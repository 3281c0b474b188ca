"""What of a dataset becomes the training, validation and test part, whatever parts it brings."""

import io
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from iterand_tf import data
from iterand_tf.data import splits
from iterand_tf.errors import DataError


def write_image(path, value, size=(8, 8), kind="PNG"):
    contents = io.BytesIO()
    PIL.Image.fromarray(np.full((*size, 3), value, np.uint8)).save(contents, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents.getvalue())


def make_folder(root, counts):
    """Images below root/PART/CLASS; those of "" stand in root/CLASS. Each has a value of its own."""
    for part, (cats, dogs) in counts.items():
        for name, count, first in (("cat", cats, 0), ("dog", dogs, 100)):
            for number in range(count):
                write_image(root / part / name / f"{number}.png", first + number + 40 * (part == "val"))
    return f"folder:{root}"


def values(examples):
    """The value of each image, and its label."""
    pairs = [(images.numpy(), labels.numpy()) for images, labels in examples.evaluation_batches(3)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return list(zip(images[:, 0, 0, 0].astype(int).tolist(), labels.argmax(1).tolist(), strict=True))


@pytest.mark.parametrize("image_size", [0, 8])
def test_a_validation_folder_beside_a_test_folder_is_used(image_size, tmp_path):
    dataset = make_folder(tmp_path, {"train": (6, 6), "test": (2, 2), "val": (3, 3)})
    loaded = data.load(dataset, validation_split=0.5, image_size=image_size)
    assert values(loaded.validation) == [(40, 0), (41, 0), (42, 0), (140, 1), (141, 1), (142, 1)]
    assert (loaded.train.num_examples, loaded.test.num_examples) == (12, 4)
    assert set(loaded.sources) == {"train", "test", "validation"}


@pytest.mark.parametrize("image_size", [0, 8])
@pytest.mark.parametrize("part", ["train", ""], ids=["train_alone", "classes_alone"])
def test_where_there_is_no_test_folder_a_part_of_each_class_is_held_out(part, image_size, tmp_path):
    dataset = make_folder(tmp_path, {part: (20, 10)})
    loaded, other_seed = (data.load(dataset, validation_split=0.25, image_size=image_size, seed=s) for s in (0, 1))
    assert [label for _, label in values(loaded.test)] == [0] * 4 + [1] * 2
    assert values(loaded.test) == values(other_seed.test) == values(data.load_test(dataset, image_size=image_size).test)
    parts = [values(examples) for examples in (loaded.train, loaded.validation, loaded.test)]
    assert [len(pairs) for pairs in parts] == [18, 6, 6]
    assert len(set().union(*parts)) == 30
    assert loaded.notes == ("the dataset brings no test part: 0.2 of each class, 6 images, are held out for it",)
    assert data.load(dataset, test_split=0.5, image_size=image_size).test.num_examples == 15


def test_a_class_of_one_image_cannot_be_divided(tmp_path):
    with pytest.raises(DataError, match="has one example, and one of each is held out to test on"):
        data.load(make_folder(tmp_path, {"": (5, 1)}))


def test_whatever_tensorflow_decodes_is_read_and_the_rest_is_counted(tmp_path):
    dataset = make_folder(tmp_path, {"train": (2, 2), "test": (1, 1)})
    cat = tmp_path / "train" / "cat"
    write_image(cat / "3.webp", 50, kind="WEBP")
    write_image(cat / "4.JPEG", 60, kind="JPEG")
    write_image(cat / "kittens" / "young" / "5.GIF", 70, kind="GIF")
    write_image(cat / "6.tif", 80, kind="TIFF")
    write_image(cat / "7.TIF", 80, kind="TIFF")
    (cat / "readme").write_text("no image")
    (cat / "._0.png").write_bytes(b"of another system")
    (cat / ".DS_Store").write_bytes(b"of another system")
    write_image(cat / ".thumbnails" / "0.png", 90)
    loaded = data.load(dataset, validation_split=0.0)
    assert [value for value, label in values(loaded.train) if label == 0] == [0, 1, 50, 60, 70]
    assert loaded.notes[0].endswith("are left out: 2 .tif, 1 without an ending")
    assert len(loaded.notes) == 1


def test_a_class_whose_name_is_not_utf8_is_refused(tmp_path):
    dataset = make_folder(tmp_path, {"train": (2, 2), "test": (1, 1)})
    shutil.copytree(bytes(tmp_path / "train" / "cat"), bytes(tmp_path) + b"/train/caf\xe9")
    with pytest.raises(DataError, match=r"has a name that is not UTF-8; rename it"):
        data.load(dataset)


@pytest.mark.parametrize("path", ["gs://bucket/images", "s3://bucket/images"])
def test_a_folder_elsewhere_is_refused(path):
    with pytest.raises(DataError, match="is not in the local file system"):
        data.load(f"folder:{path}")


def test_a_folder_above_the_limit_of_memory_is_decoded_as_it_is_read(tmp_path, monkeypatch):
    dataset = make_folder(tmp_path, {"train": (2, 2), "test": (1, 1)})
    assert data.load(dataset).image_size == 0
    monkeypatch.setattr(splits, "MEMORY_LIMIT_BYTES", 6 * 8 * 8 * 3 - 1)
    loaded = data.load(dataset)
    assert (loaded.image_size, loaded.train.image_shape) == (8, (8, 8, 3))
    assert "decoded as they are read, and resized to 8 pixels" in loaded.notes[0]


def test_labels_are_divided_alike_for_any_fraction():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 2)
    for fraction, counts in ((0.2, [2, 1, 1]), (0.5, [5, 2, 1]), (0.99, [9, 2, 1]), (0.01, [1, 1, 1])):
        rest, test = splits.stratified_indices(labels, fraction)
        assert np.bincount(labels[test]).tolist() == counts
        assert sorted([*rest, *test]) == list(range(15))


def _tfds(name, counts, size):
    """A TFDS dataset whose splits have so many images; `size` None makes them of several sizes."""

    def info(self):
        image = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(names=["cat", "dog"])})
        return self.dataset_info_from_configs(features=features, supervised_keys=("image", "label"))

    def generate(count, first):
        for number in range(count):
            value = np.uint8(first + number)
            yield number, {"image": np.full((size or 8 + number % 2, size or 9, 3), value), "label": number % 2}

    def split_generators(self, manager):
        return {split: generate(count, 60 * place) for place, (split, count) in enumerate(counts.items())}

    return type(
        name,
        (tfds.core.GeneratorBasedBuilder,),
        {
            "VERSION": tfds.core.Version("1.0.0"),
            "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name="plain"), tfds.core.BuilderConfig(name="other")],
            "_info": info,
            "_split_generators": split_generators,
            "_generate_examples": lambda self: None,
            "__module__": __name__,
        },
    )


ONE_SPLIT_SMALL = _tfds("OneSplitSmall", {"train": 30}, 8)
ONE_SPLIT_LARGE = _tfds("OneSplitLarge", {"train": 30}, None)
THREE_SPLITS = _tfds("ThreeSplits", {"train": 20, "validation": 6, "test": 8}, 8)
NO_TRAIN = _tfds("NoTrain", {"test": 6}, 8)


@pytest.mark.parametrize("name", ["one_split_small", "one_split_large"])
def test_a_tfds_dataset_of_one_split(name, tmp_path):
    loaded = data.load(name, str(tmp_path), validation_split=0.25)
    parts = [values(examples) for examples in (loaded.train, loaded.validation, loaded.test)]
    assert [len(pairs) for pairs in parts] == [18, 6, 6]
    assert len(set().union(*parts)) == 30
    assert [label for _, label in parts[2]].count(0) == 3
    assert all(value % 2 == label for pairs in parts for value, label in pairs)
    assert "6 images, are held out for it" in loaded.notes[0]
    again = data.load_test(name, str(tmp_path), loaded.image_size)
    assert values(again.test) == parts[2]
    assert again.sources["train"] == loaded.sources["train"]
    trained = [labels.numpy() for _, labels in loaded.train.training_batches(5, "none", 0, 0, 1)]
    assert sum(map(len, trained)) == 18


@pytest.mark.parametrize("image_size", [0, 16])
def test_a_tfds_validation_split_beside_a_test_split_is_used(image_size, tmp_path):
    loaded = data.load("three_splits", str(tmp_path), validation_split=0.5, image_size=image_size)
    counts = [examples.num_examples for examples in (loaded.train, loaded.validation, loaded.test)]
    assert counts == [20, 6, 8]
    assert {value // 60 for value, _ in values(loaded.validation)} == {1}
    assert values(data.load_test("three_splits", str(tmp_path), image_size).test) == values(loaded.test)


@pytest.mark.parametrize("name", ["three_splits/other", "three_splits:1.0.0", "three_splits/plain:1.0.0"])
def test_a_tfds_name_may_have_a_configuration_and_a_version(name, tmp_path):
    assert data.load(name, str(tmp_path)).test.num_examples == 8


@pytest.mark.parametrize("name", ["three_splits[:50%]", "three_splits/plain[train:10]"])
def test_a_part_of_a_tfds_dataset_is_refused(name, tmp_path):
    with pytest.raises(DataError, match="give the dataset's name alone, and choose parts by --validation_split"):
        data.load(name, str(tmp_path))


def test_a_tfds_dataset_without_training_examples_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no examples in its train split"):
        data.load("no_train", str(tmp_path))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", data.KERAS_CV_POLICIES)
def test_policies_take_grey_and_coloured_images(augmentation, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, channels), np.uint8)
    examples = data.ArrayExamples(images, np.arange(6) % 2, num_classes=2)
    ((batch, labels),) = examples.training_batches(6, augmentation, 0, 0, 1)
    assert batch.shape == (6, 8, 8, channels)
    assert labels.shape == (6, 2)
    assert tf.reduce_max(batch) <= 255


@pytest.mark.parametrize("parts", [("Train", "Test"), ("training", "testing"), ("train", "test", "valid")])
def test_folders_that_look_like_parts_are_no_classes(parts, tmp_path):
    dataset = make_folder(tmp_path, dict.fromkeys(parts, (3, 3)))
    with pytest.raises(DataError, match="looks like a part of the dataset; rename it"):
        data.load(dataset)


def test_a_link_to_a_folder_above_is_not_followed_round(tmp_path):
    dataset = make_folder(tmp_path, {"train": (3, 3), "test": (1, 1)})
    (tmp_path / "train" / "cat" / "up").symlink_to(tmp_path / "train")
    assert data.load(dataset, validation_split=0.0).train.num_examples == 6


def test_a_tfds_dataset_of_several_shards_is_divided_alike_in_memory_and_as_it_is_read(tmp_path):
    builder = tfds.builder("one_split_small", data_dir=str(tmp_path))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=4))
    in_memory, as_read = (data.load("one_split_small", str(tmp_path), image_size=size) for size in (0, 16))
    assert [label for _, label in values(in_memory.test)].count(0) == 3
    assert sorted(values(in_memory.test)) == sorted(values(as_read.test))
