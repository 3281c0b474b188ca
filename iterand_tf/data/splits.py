"""What a run trains on, validates by and tests on, and how the parts that are held out are chosen."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from iterand_tf.data.examples import ArrayExamples, Examples
from iterand_tf.errors import DataError

# Datasets whose decoded images take more bytes than this are decoded as they are read.
MEMORY_LIMIT_BYTES = 4 * 2**30
DEFAULT_IMAGE_SIZE = 224
_TEST_SEED = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """What identifies one part of a dataset as it is stored, to find out later that it has changed.

    Args:
        num_examples: how many examples it has.
        sha256: of the names of its examples, or of the dataset's name and version.
    """

    num_examples: int
    sha256: str

    @classmethod
    def of_names(cls, names: Iterable[bytes], num_examples: int) -> "Source":
        """The source whose examples, or which itself, has these names.

        Example:

        >>> Source.of_names([b"cifar10/3.0.2"], 50_000).sha256[:8]
        '4a1c72bd'
        """
        digest = hashlib.sha256()
        for name in names:
            digest.update(name + b"\0")
        return cls(num_examples, digest.hexdigest())


@dataclasses.dataclass(frozen=True)
class EvaluationSplit:
    """What a network is tested on.

    Args:
        test: the examples.
        class_names: by label.
        sources: the stored parts of the dataset that were looked at, by name.
    """

    test: Examples
    class_names: tuple[str, ...]
    sources: dict[str, Source]


@dataclasses.dataclass(frozen=True)
class Splits(EvaluationSplit):
    """What a run trains on, chooses by and reports.

    Args:
        test: the examples to test on.
        class_names: by label.
        sources: the stored parts of the dataset, by name.
        train: the examples to train on.
        validation: the examples to validate on, or None when nothing is held out.
        image_size: pixels of the square that images are resized to as they are read; 0 where they are in memory.
        notes: what a user should know of how the parts came about, a sentence each.
    """

    train: Examples
    validation: Examples | None
    image_size: int = 0
    notes: tuple[str, ...] = ()


def validation_indices(
    count: int, validation_split: float, max_train_examples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seeded (train, validation) indices; max_train_examples cuts the training part only."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = num_held_out(count, validation_split)
    train = order[held_out:]
    if max_train_examples:
        train = train[:max_train_examples]
    return np.sort(train), np.sort(order[:held_out])


def num_held_out(count: int, validation_split: float) -> int:
    """How many of `count` examples validate; DataError if none are left to train on."""
    held_out = round(count * validation_split)
    if held_out >= count:
        raise DataError(
            f"nothing is left to train on: all {count} examples are held out; "
            f"lower --validation_split={validation_split}."
        )
    return held_out


def stratified_indices(labels: np.ndarray, test_split: float) -> tuple[np.ndarray, np.ndarray]:
    """(Rest, test) indices of a dataset that brings no test part: a fraction of each class.

    It is the same part whatever the run's seed, so that runs of several seeds are tested on the same examples.

    Args:
        labels: integer array of shape (examples,).
        test_split: fraction of each class, in (0, 1).

    Raises:
        DataError: if a class has fewer than two examples.

    Example:

    >>> rest, test = stratified_indices(np.array([0, 0, 0, 0, 1, 1]), 0.25)
    >>> len(rest), len(test)
    (4, 2)
    """
    draw = np.random.default_rng(_TEST_SEED)
    test = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < 2:
            raise DataError(
                f"the class with the label {label} has one example, and one of each is held out to test on; add some."
            )
        count = min(max(round(len(of_class) * test_split), 1), len(of_class) - 1)
        test.append(draw.permutation(of_class)[:count])
    chosen = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def held_out_note(num_test: int, test_split: float) -> str:
    """What a user should know where `stratified_indices` has chosen the test part."""
    return f"the dataset brings no test part: {test_split:g} of each class, {num_test:,} images, are held out for it"


def memory_notes(num_bytes: int, image_size: int) -> list[str]:
    """What a user should know where decoded images of so many bytes in all do not fit in memory."""
    if num_bytes <= MEMORY_LIMIT_BYTES:
        return []
    return [
        f"the decoded images would take {num_bytes / 2**30:.1f} GiB, above the limit of "
        f"{MEMORY_LIMIT_BYTES / 2**30:.1f} GiB: they are decoded as they are read, and resized to {image_size} pixels"
    ]


def square_size(shape: tuple[int, ...]) -> int:
    """Pixels of the square that images of a shape become where they are decoded as they are read.

    Example:

    >>> square_size((64, 64, 3)), square_size((64, 48, 3))
    (64, 224)
    """
    return shape[0] if shape[0] == shape[1] else DEFAULT_IMAGE_SIZE


def check_labels(examples: ArrayExamples) -> None:
    """Raises DataError if a label is outside the class range."""
    outside = (examples.labels < 0) | (examples.labels >= examples.num_classes)
    if outside.any():
        raise DataError(
            f"the label {examples.labels[outside][0]} is outside the class range 0 to {examples.num_classes - 1}; "
            "mend the dataset."
        )


def split_arrays(
    train: ArrayExamples, validation: ArrayExamples | None, validation_split: float, max_train_examples: int, seed: int
) -> tuple[ArrayExamples, ArrayExamples | None]:
    """The examples to train and to validate on: those given, or where there are none a part of the training ones.

    Raises:
        DataError: if nothing is left to train on.
    """
    chosen, held_out = validation_indices(
        train.num_examples, 0.0 if validation else validation_split, max_train_examples, seed
    )
    if validation is None and len(held_out):
        validation = train.take(held_out)
    return train.take(chosen), validation
