"""Folders of images: PATH/SPLIT/CLASS/*.jpg, or PATH/CLASS/*.jpg."""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
from typing import Self

import numpy as np
import tensorflow as tf

from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples, read_files
from iterand_tf.data.splits import (
    EvaluationSplit,
    Source,
    Splits,
    held_out_note,
    memory_notes,
    square_size,
    stratified_indices,
    validation_indices,
)
from iterand_tf.errors import DataError
from iterand_tf.files import is_local

_LOOK_LIKE_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
# What tf.io.decode_image reads.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")


def load_folder(
    path: str, image_size: int, validation_split: float, test_split: float, max_train_examples: int, seed: int
) -> Splits:
    """The images below PATH, a folder a class.

    PATH/train holds the training images, and PATH/test, PATH/validation or PATH/val those to test on. Where there are
    both a test folder and one of the others, the other one is for validation. Where there is none, or the classes stand
    in PATH itself, a part of each class is held out to test on. Sub-folders of a class belong to it.

    Images of one size that fit in memory are decoded once; others are decoded, cropped and resized as they are read.

    Raises:
        DataError: if images are missing or broken.
    """
    parts = _Parts.below(path)
    classes = _class_names(parts.train)
    train = _Listing.of(parts.train, classes)
    empty = set(range(len(classes))) - set(train.labels.tolist())
    if empty:
        raise DataError(f"{parts.train}/{classes[min(empty)]} holds no image; put some there, or remove it.")
    if len(classes) < 2:
        raise DataError(f"--dataset=folder:{path} has one class; training needs at least two in {parts.train}.")
    listings = {"train": train}
    listings |= {name: _Listing.of(folder, classes) for name, folder in parts.others.items()}
    sources = {name: listing.source() for name, listing in listings.items()}
    notes = _left_out_notes(listings)
    test = listings.get("test")
    if test is None:
        rest, held_out = stratified_indices(train.labels, test_split)
        train, test = train.take(rest), train.take(held_out)
        notes.append(held_out_note(len(held_out), test_split))
    validation = listings.get("validation")
    chosen, held_out = validation_indices(
        len(train.paths), 0.0 if validation else validation_split, max_train_examples, seed
    )
    if validation is None and len(held_out):
        validation = train.take(held_out)
    train = train.take(chosen)
    shape = train.first_shape()
    if not image_size:
        num_images = sum(len(listing.paths) for listing in listings.values())
        if too_large := memory_notes(num_images * math.prod(shape), square_size(shape)):
            image_size = square_size(shape)
            notes += too_large

    test_examples, train_examples = (part.examples(len(classes), image_size, shape) for part in (test, train))
    validation_examples = validation.examples(len(classes), image_size, shape) if validation else None
    return Splits(test_examples, classes, sources, train_examples, validation_examples, image_size, tuple(notes))


def load_folder_test(path: str, image_size: int, test_split: float, class_names: tuple[str, ...]) -> EvaluationSplit:
    """The images to test on, as `load_folder` chooses them; the training images are not read.

    Args:
        path: of the folder.
        image_size: the `image_size` of the `Splits` of `load_folder`.
        test_split: fraction held out where the folder brings no test images.
        class_names: by label; empty for those of the training folder.

    Raises:
        DataError: if images are missing or broken.
    """
    parts = _Parts.below(path, needs_train=False)
    source = "test" if "test" in parts.others else "train"
    folder = parts.others.get("test", parts.train)
    classes = class_names or _class_names(parts.train)
    _check_classes(folder, classes, "the run was not trained on; restore the former name")
    listing = _Listing.of(folder, classes)
    test = listing if source == "test" else listing.take(stratified_indices(listing.labels, test_split)[1])
    examples = test.examples(len(classes), image_size, test.first_shape())
    return EvaluationSplit(examples, classes, {source: listing.source()})


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The folders of a dataset; the others are named "test" and "validation"."""

    train: pathlib.Path
    others: dict[str, pathlib.Path]

    @classmethod
    def below(cls, path: str, needs_train: bool = True) -> Self:
        if not path:
            raise DataError("--dataset=folder: lacks its path; write --dataset=folder:PATH.")
        if not is_local(path):
            raise DataError(f"--dataset=folder:{path} is not in the local file system; give a local folder.")
        root = pathlib.Path(path).expanduser()
        held_out = [root / name for name in ("test", "validation", "val") if (root / name).is_dir()]
        train = root / "train"
        for name in _sub_folders(root):
            if name.lower() in _LOOK_LIKE_PARTS and name not in ("train", "test", "validation", "val"):
                raise DataError(
                    f"{root}/{_shown(name)} looks like a part of the dataset; rename it to train, test or validation, "
                    "or move it elsewhere."
                )
        if (root / "validation").is_dir() and (root / "val").is_dir():
            raise DataError(f"{root} has both validation and val; keep one of them.")
        if needs_train and held_out and not train.is_dir():
            raise DataError(
                f"--dataset=folder:{path} needs images in {path}/train/CLASS/ and {path}/test/CLASS/; one is missing."
            )
        if not held_out and not train.is_dir():
            train = root
        if not root.is_dir() or not (held_out or _sub_folders(train)):
            raise DataError(
                f"--dataset=folder:{path} needs images in {path}/train/CLASS/ and {path}/test/CLASS/, or in "
                f"{path}/CLASS/; there are none."
            )
        others = dict(zip(("test", "validation"), held_out, strict=False))
        if held_out and held_out[0].name != "test":
            others.pop("validation", None)
        return cls(train, others)


@dataclasses.dataclass(frozen=True)
class _Listing:
    """Image files with their labels, and how many other files of which ending there are.

    Args:
        names: of the files, with that of their part, as bytes.
        paths: array of the same files' paths, as bytes.
        labels: int32 array.
        left_out: by ending.
    """

    names: list[bytes]
    paths: np.ndarray
    labels: np.ndarray
    left_out: collections.Counter[str]

    @classmethod
    def of(cls, folder: pathlib.Path, classes: tuple[str, ...]) -> Self:
        _check_classes(folder, classes, "the train folder does not have; remove or add it")
        left_out: collections.Counter[str] = collections.Counter()
        files: list[tuple[pathlib.Path, int]] = []
        for label, name in enumerate(classes):
            for file in _files_below(folder / name):
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    files.append((file, label))
                else:
                    left_out[file.suffix.lower() or "without an ending"] += 1
        if not files:
            raise DataError(f"{folder} holds no image; put files with the endings {' '.join(IMAGE_SUFFIXES)} there.")
        for file, _ in files:
            if not file.is_file():
                raise DataError(f"{_shown(file)} is not a file; remove or replace it.")
        paths = [os.fsencode(file) for file, _ in files]
        # With the folder's own name, so that a part that takes another one's place is noticed.
        names = [os.fsencode(file.relative_to(folder.parent)) for file, _ in files]
        return cls(names, np.array(paths), np.array([label for _, label in files], np.int32), left_out)

    def take(self, indices: np.ndarray) -> Self:
        """The files at `indices`, in that order."""
        names = [self.names[index] for index in indices]
        return dataclasses.replace(self, names=names, paths=self.paths[indices], labels=self.labels[indices])

    def source(self) -> Source:
        return Source.of_names(self.names, len(self.names))

    def examples(self, num_classes: int, image_size: int, shape: tuple[int, int, int]) -> Examples:
        """The images: decoded as they are read, or where `image_size` is 0 now; all must have `shape` then."""
        if not image_size:
            return self._decoded(num_classes, shape)
        return EncodedExamples(
            lambda order_seed: read_files(self.paths, self.labels, order_seed),
            lambda pair: pair,
            len(self.paths),
            num_classes,
            image_size,
        )

    def first_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the first image."""
        with _decoding(self.paths[0]):
            return tuple(_decode(tf.io.read_file(self.paths[0])).shape)

    def _decoded(self, num_classes, shape):
        decoded = read_files(self.paths, self.labels, None).map(
            lambda contents, label: _decode(contents), tf.data.AUTOTUNE
        )
        images = []
        iterator = decoded.as_numpy_iterator()
        for path in self.paths:
            with _decoding(path):
                image = next(iterator)
            if image.shape != shape:
                height, width = image.shape[:2]
                raise DataError(
                    f"{_shown(path)} has {height}x{width} pixels, others {shape[0]}x{shape[1]}; "
                    "give --image_size to resize all."
                )
            images.append(image)
        return ArrayExamples(np.stack(images), self.labels, num_classes)


def _decode(contents):
    return tf.io.decode_image(contents, channels=3, expand_animations=False)


@contextlib.contextmanager
def _decoding(path):
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{_shown(path)} cannot be decoded as an image; remove or replace it.") from error


def _left_out_notes(listings):
    counts: collections.Counter[str] = collections.Counter()
    for listing in listings.values():
        counts += listing.left_out
    if not counts:
        return []
    kinds = ", ".join(f"{count} {_shown(ending)}" for ending, count in sorted(counts.items()))
    return [f"files of other kinds than {' '.join(IMAGE_SUFFIXES)} are left out: {kinds}"]


def _check_classes(folder, classes, what_is_wrong):
    for name in _sub_folders(folder):
        if name not in classes:
            raise DataError(f"{folder}/{_shown(name)} is a class that {what_is_wrong}.")


def _class_names(folder):
    names = _sub_folders(folder)
    for name in names:
        if _shown(name) != name:
            raise DataError(f"the class folder {folder}/{_shown(name)} has a name that is not UTF-8; rename it.")
        if "\n" in name:
            raise DataError(f"the class folder {folder}/{name!r} has a line's end in its name; rename it.")
    return tuple(names)


def _sub_folders(folder):
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files_below(folder):
    """All files below a folder in alphabetical order, hidden files and folders left out."""
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        # A link may lead to a folder that was read already, or that holds this one.
        seen.add(os.path.realpath(path))
        unseen = (name for name in folders if os.path.realpath(os.path.join(path, name)) not in seen)
        folders[:] = sorted(name for name in unseen if not name.startswith(".") and not _is_above(path, name))
        for name in sorted(names):
            if not name.startswith("."):
                yield pathlib.Path(path, name)


def _is_above(path, name):
    """Whether a link in a folder leads to a folder that the first one lies in."""
    target = os.path.realpath(os.path.join(path, name))
    return os.path.commonpath([target, os.path.realpath(path)]) == target


def _shown(path):
    """A path as text that can be printed: bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode(errors="replace")
