"""Folders of images: PATH/SPLIT/CLASS/*.jpg."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from iterand_tf.data.examples import ArrayExamples, EncodedExamples, read_files
from iterand_tf.data.splits import Splits, split_arrays, validation_indices
from iterand_tf.errors import DataError

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}


def load_folder(path: str, image_size: int, validation_split: float, max_train_examples: int, seed: int) -> Splits:
    """PATH/SPLIT/CLASS/*.jpg with the splits train and test (or validation, or val).

    Images of one size are decoded once; with an image size given they are decoded, cropped and resized as they are
    read.
    """
    if not path:
        raise DataError("--dataset=folder: lacks its path; write --dataset=folder:PATH.")
    root = pathlib.Path(path).expanduser()
    test_folders = [root / split for split in ("test", "validation", "val") if (root / split).is_dir()]
    if not (root / "train").is_dir() or not test_folders:
        raise DataError(
            f"--dataset=folder:{path} needs images in {path}/train/CLASS/ and {path}/test/CLASS/; one is missing."
        )
    classes = tuple(_class_folders(root / "train"))
    train_files, test_files = (_labelled_files(folder, classes) for folder in (root / "train", test_folders[0]))
    empty = set(range(len(classes))) - set(train_files[1].tolist())
    if empty:
        raise DataError(f"{root}/train/{classes[min(empty)]} holds no image; put some there, or remove it.")
    if len(classes) < 2:
        raise DataError(f"--dataset=folder:{path} has one class; training needs at least two in {root}/train.")
    if not image_size:
        train = _decode_files(train_files, classes, None)
        test = _decode_files(test_files, classes, train.image_shape)
        return split_arrays(train, test, validation_split, max_train_examples, seed, classes)

    def stream(paths, labels):
        return EncodedExamples(
            lambda order_seed: read_files(paths, labels, order_seed),
            lambda pair: pair,
            len(paths),
            len(classes),
            image_size,
        )

    chosen, held_out = validation_indices(len(train_files[0]), validation_split, max_train_examples, seed)
    paths, labels = train_files
    validation = stream(paths[held_out], labels[held_out]) if len(held_out) else None
    return Splits(stream(paths[chosen], labels[chosen]), validation, stream(*test_files), classes)


def _class_folders(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _labelled_files(folder, classes):
    strangers = [name for name in _class_folders(folder) if name not in classes]
    if strangers:
        raise DataError(f"{folder}/{strangers[0]} is a class that the train folder does not have; remove or add it.")
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(
            f"{folder} holds no image; put files with the endings {' '.join(sorted(_IMAGE_SUFFIXES))} there."
        )
    for file, _ in files:
        if not file.is_file():
            raise DataError(f"{file} is not a file; remove or replace it.")
    paths, labels = zip(*files, strict=True)
    return np.array([os.fsencode(path) for path in paths]), np.array(labels, dtype=np.int32)


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
            raise DataError(f"{os.fsdecode(path)} cannot be decoded as an image; remove or replace it.") from error
        shape = shape or image.shape
        if image.shape != shape:
            height, width = image.shape[:2]
            raise DataError(
                f"{os.fsdecode(path)} has {height}x{width} pixels, others {shape[0]}x{shape[1]}; "
                "give --image_size to resize all."
            )
        images.append(image)
    return ArrayExamples(np.stack(images), labels, len(classes))
