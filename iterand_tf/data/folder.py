"""Folders of images: PATH/SPLIT/CLASS/*.jpg, or PATH/CLASS/*.jpg."""

import collections
import contextlib
import dataclasses
import os
import pathlib
from typing import Any, Self

import numpy as np
import tensorflow as tf

from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples, read_files
from iterand_tf.data.splits import Source, Stored
from iterand_tf.errors import DataError
from iterand_tf.files import is_local

_LOOK_LIKE_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
# What tf.io.decode_image reads.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")


def open_folder(path: str) -> Stored:
    """The images below PATH, a folder a class.

    PATH/train holds the training images, and PATH/test, PATH/validation or PATH/val those to test on. Where there are
    both a test folder and one of the others, the other one is for validation. Where there is none, or the classes stand
    in PATH itself, there is no test part. Sub-folders of a class belong to it.
    """
    folders = _part_folders(path)
    classes = _class_names(folders["train"])
    parts = {"train": _Listing.of(folders["train"], classes)}
    empty = set(range(len(classes))) - set(parts["train"].labels.tolist())
    if empty:
        raise DataError(f"{folders['train']}/{classes[min(empty)]} holds no image; put some there, or remove it.")
    if len(classes) < 2:
        raise DataError(f"--dataset=folder:{path} has one class; training needs at least two in {folders['train']}.")
    parts |= {name: _Listing.of(folder, classes) for name, folder in folders.items() if name != "train"}
    return Stored(classes, parts, _left_out_notes(parts))


def open_folder_test(path: str, class_names: tuple[str, ...]) -> Stored:
    """The part of `open_folder` that a network is tested on, by the classes that it was trained on.

    Without names the classes are those of the training folder, which need not be there otherwise.
    """
    folders = _part_folders(path, needs_train=False)
    name = "test" if "test" in folders else "train"
    classes = class_names or _class_names(folders["train"])
    _check_classes(folders[name], classes, "the run was not trained on; restore the former name")
    return Stored(classes, {name: _Listing.of(folders[name], classes)})


def _part_folders(path, needs_train=True):
    """The folders of a dataset by the names of its parts, "train" first, which may be missing unless it is needed."""
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
    return {"train": train, **others}


@dataclasses.dataclass(frozen=True)
class _Listing:
    """Image files with their labels, and how many other files of which ending there are; names begin with the part."""

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
        names = [self.names[index] for index in indices]
        return dataclasses.replace(self, names=names, paths=self.paths[indices], labels=self.labels[indices])

    @property
    def num_examples(self) -> int:
        return len(self.paths)

    def source(self) -> Source:
        return Source.of_names(self.names, len(self.names))

    def shape_to_keep(self, image_size: int) -> tuple[int, int, int] | None:
        """The first image's shape, which the others must have, unless all are to be resized."""
        if image_size:
            return None
        with _decoding(self.paths[0]):
            return tuple(_decode(tf.io.read_file(self.paths[0])).shape)

    def examples(self, num_classes: int, image_size: int, shape: Any) -> Examples:
        if not image_size:
            return self._decoded(num_classes, shape)
        return EncodedExamples(
            lambda order_seed: read_files(self.paths, self.labels, order_seed),
            lambda pair: pair,
            len(self.paths),
            num_classes,
            image_size,
        )

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
        return ()
    kinds = ", ".join(f"{count} {_shown(ending)}" for ending, count in sorted(counts.items()))
    return (f"files of other kinds than {' '.join(IMAGE_SUFFIXES)} are left out: {kinds}",)


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
