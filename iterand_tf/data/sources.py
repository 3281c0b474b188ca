"""Where examples come from: scikit-learn's digits, TFDS, folders of images."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples, read_files
from iterand_tf.errors import DataError

DEFAULT_IMAGE_SIZE = 224
MEMORY_LIMIT_BYTES = 4 * 2**30  # decoded images above this are decoded as they are read
_READ_BATCH = 1000
_SHUFFLE_WINDOW = 2048  # encoded images; Dataset.shuffle takes no tensor as its seed, and the epoch is one
_PARALLEL_SHARDS = 16
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}
_TFDS_TEST_SPLITS = {"imagenet2012": "validation"}  # where the split named test has no labels


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run trains on, chooses by and reports.

    Args:
        train, validation, test: the examples; validation is None when nothing is held out.
        class_names: by label.
    """

    train: Examples
    validation: Examples | None
    test: Examples
    class_names: tuple[str, ...]


def load_digits(validation_split: float, max_train_examples: int, seed: int) -> Splits:
    """The 1,797 8x8 digits that come with scikit-learn; always the same fifth of them, stratified, is the test set."""
    import sklearn.datasets
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    examples = ArrayExamples(images, digits.target.astype(np.int32), num_classes=10)
    train, test = sklearn.model_selection.train_test_split(
        np.arange(examples.num_examples), test_size=0.2, random_state=0, stratify=digits.target
    )
    names = tuple(map(str, range(10)))
    return _split_arrays(examples.take(train), examples.take(test), validation_split, max_train_examples, seed, names)


def load_tfds(
    name: str, data_dir: str, image_size: int, validation_split: float, max_train_examples: int, seed: int
) -> Splits:
    """A TFDS image classification dataset; prepared data is used, anything else is downloaded.

    Images of one size that fit in memory are decoded once; others are decoded as they are read.
    """
    builder = _prepared_builder(name, data_dir)
    image, label = _image_and_label(builder, name)
    splits = builder.info.splits
    test_name = _TFDS_TEST_SPLITS.get(builder.name, "test" if "test" in splits else "validation")
    for split in ("train", test_name):
        if split not in splits or not splits[split].num_examples:
            raise DataError(f"--dataset={name} has no examples in its {split} split; prepare it anew with tfds build.")
    names = tuple(builder.info.features[label].names or map(str, range(builder.info.features[label].num_classes)))
    shape = builder.info.features[image].shape
    size = None not in shape and sum(s.num_examples for s in splits.values()) * np.prod(shape)
    if size and size <= MEMORY_LIMIT_BYTES and (not image_size or shape[:2] == (image_size, image_size)):
        train, test = (_tfds_arrays(builder, split, image, label) for split in ("train", test_name))
        return _split_arrays(train, test, validation_split, max_train_examples, seed, names)
    total = splits["train"].num_examples
    held_out = _num_held_out(total, validation_split)
    first = int(np.random.default_rng(seed).integers(total - held_out + 1))
    parts = {
        "train": [(0, first), (first + held_out, total)],
        "validation": [(first, first + held_out)],
    }
    if max_train_examples:
        parts["train"] = _first_of(parts["train"], max_train_examples)

    def stream(split, ranges):
        instructions = [
            instruction
            for start, stop in ranges
            if stop > start
            for instruction in builder.info.splits[f"{split}[{start}:{stop}]"].file_instructions
        ]
        return EncodedExamples(
            lambda order_seed: _read_shards(instructions, image, label, order_seed),
            sum(stop - start for start, stop in ranges),
            len(names),
            image_size or DEFAULT_IMAGE_SIZE,
        )

    return Splits(
        stream("train", parts["train"]),
        stream("train", parts["validation"]) if held_out else None,
        stream(test_name, [(0, splits[test_name].num_examples)]),
        names,
    )


def load_folder(path: str, image_size: int, validation_split: float, max_train_examples: int, seed: int) -> Splits:
    """PATH/SPLIT/CLASS/*.jpg with the splits train and test (or validation, or val).

    Images of one size are decoded once; with an image size given they are decoded, cropped and resized as they are
    read.
    """
    if not path:
        raise DataError("--dataset=folder: lacks its path; write --dataset=folder:PATH.")
    root = pathlib.Path(path)
    test_folders = [root / split for split in ("test", "validation", "val") if (root / split).is_dir()]
    if not (root / "train").is_dir() or not test_folders:
        raise DataError(
            f"--dataset=folder:{path} needs images in {path}/train/CLASS/ and {path}/test/CLASS/; one is missing."
        )
    classes = tuple(sorted(folder.name for folder in (root / "train").iterdir() if folder.is_dir()))
    train_files, test_files = (_labelled_files(folder, classes) for folder in (root / "train", test_folders[0]))
    if not image_size:
        train = _decode_files(train_files, classes, None)
        test = _decode_files(test_files, classes, train.image_shape)
        return _split_arrays(train, test, validation_split, max_train_examples, seed, classes)

    def stream(paths, labels):
        return EncodedExamples(
            lambda order_seed: read_files(paths, labels, order_seed), len(paths), len(classes), image_size
        )

    chosen, held_out = _validation_indices(len(train_files[0]), validation_split, max_train_examples, seed)
    paths, labels = train_files
    validation = stream(paths[held_out], labels[held_out]) if len(held_out) else None
    return Splits(stream(paths[chosen], labels[chosen]), validation, stream(*test_files), classes)


def _validation_indices(count, validation_split, max_train_examples, seed):
    """Seeded (train, validation) indices; max_train_examples cuts the training part only."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = _num_held_out(count, validation_split)
    train = order[held_out:]
    if max_train_examples:
        train = train[:max_train_examples]
    return np.sort(train), np.sort(order[:held_out])


def _num_held_out(count, validation_split):
    held_out = round(count * validation_split)
    if held_out >= count:
        raise DataError(
            f"nothing is left to train on: all {count} examples are held out; "
            f"lower --validation_split={validation_split}."
        )
    return held_out


def _split_arrays(train, test, validation_split, max_train_examples, seed, class_names):
    for examples in (train, test):
        outside = (examples.labels < 0) | (examples.labels >= examples.num_classes)
        if outside.any():
            raise DataError(
                f"the label {examples.labels[outside][0]} is outside the class range 0 to {examples.num_classes - 1}; "
                "mend the dataset."
            )
    chosen, held_out = _validation_indices(train.num_examples, validation_split, max_train_examples, seed)
    validation = train.take(held_out) if len(held_out) else None
    return Splits(train.take(chosen), validation, test, class_names)


def _first_of(ranges, count):
    kept = []
    for start, stop in ranges:
        kept.append((start, min(stop, start + count)))
        count -= kept[-1][1] - start
    return kept


def _prepared_builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    if data_dir and not pathlib.Path(data_dir).expanduser().is_dir():
        raise DataError(f"--data_dir={data_dir} does not exist; give the directory that holds the prepared datasets.")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"--dataset={name} is not digits, folder:PATH or a dataset that TFDS knows ({_first_line(error)})."
        ) from error
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            if builder.name == "imagenet2012":
                manual = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "downloads" / "manual"
                raise DataError(
                    f"--dataset={name} is not prepared in {builder.data_dir}; put ILSVRC2012_img_train.tar and "
                    f"ILSVRC2012_img_val.tar from image-net.org into {manual} and start again, or give --data_dir."
                ) from error
            raise DataError(
                f"--dataset={name} is not prepared in {builder.data_dir} and could not be downloaded "
                f"({_first_line(error)}); give --data_dir or TFDS_DATA_DIR."
            ) from error
    return builder


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _image_and_label(builder, name):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    if keys and len(keys) == 2:
        image, label = keys
        features = builder.info.features
        if isinstance(features[image], tfds.features.Image) and isinstance(features[label], tfds.features.ClassLabel):
            return image, label
    raise DataError(f"--dataset={name} is not an image classification dataset; choose one with images and labels.")


def _tfds_arrays(builder, split, image, label):
    batches = builder.as_dataset(split=split, batch_size=_READ_BATCH, shuffle_files=False).prefetch(2)
    parts = [(batch[image].numpy(), batch[label].numpy()) for batch in batches]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArrayExamples(images, labels.astype(np.int32), builder.info.features[label].num_classes)


def _read_shards(instructions, image, label, order_seed):
    """(encoded image, label) from TFRecord shards, several at a time; shards and a window of examples are shuffled."""
    # Alone, the two features take a third of the time of all that a record holds.
    features = {image: tf.io.FixedLenFeature((), tf.string), label: tf.io.FixedLenFeature((), tf.int64)}
    files = tf.constant([instruction.filename for instruction in instructions])
    skips = tf.constant([instruction.skip for instruction in instructions], tf.int64)
    takes = tf.constant([instruction.take for instruction in instructions], tf.int64)
    indices = tf.range(len(instructions))
    if order_seed is not None:
        indices = tf.random.experimental.stateless_shuffle(indices, seed=order_seed)

    def parse(record):
        example = tf.io.parse_single_example(record, features)
        return example[image], example[label]

    records = tf.data.Dataset.from_tensor_slices(indices).interleave(
        lambda index: tf.data.TFRecordDataset(files[index]).skip(skips[index]).take(takes[index]),
        cycle_length=_PARALLEL_SHARDS if order_seed is not None else 1,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    if order_seed is not None:

        def shuffled(number, window):
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.size(window)), seed=tf.random.fold_in(order_seed, number)
            )
            return tf.data.Dataset.from_tensor_slices(order).map(lambda index: window[index])

        # The next window is read while this one is decoded.
        records = records.batch(_SHUFFLE_WINDOW).prefetch(1).enumerate().flat_map(shuffled)
    return records.map(parse, tf.data.AUTOTUNE)


def _labelled_files(folder, classes):
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in classes)
    if strangers:
        raise DataError(f"{folder}/{strangers[0]} is a class that the train folder does not have; remove or add it.")
    files = [
        (str(file), label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(
            f"{folder} holds no image; put files with the endings {' '.join(sorted(_IMAGE_SUFFIXES))} there."
        )
    paths, labels = zip(*files, strict=True)
    return np.array(paths), np.array(labels, dtype=np.int32)


def _decode_files(files, classes, shape):
    paths, labels = files
    decoded = read_files(paths, labels, None).map(
        lambda contents, label: tf.io.decode_image(contents, channels=3, expand_animations=False), tf.data.AUTOTUNE
    )
    images = []
    iterator = decoded.as_numpy_iterator()
    for path in paths:
        try:
            image = next(iterator)
        except tf.errors.InvalidArgumentError as error:
            raise DataError(f"{path} cannot be decoded as an image; remove or replace it.") from error
        shape = shape or image.shape
        if image.shape != shape:
            height, width = image.shape[:2]
            raise DataError(
                f"{path} has {height}x{width} pixels, others {shape[0]}x{shape[1]}; give --image_size to resize all."
            )
        images.append(image)
    return ArrayExamples(np.stack(images), labels, len(classes))
