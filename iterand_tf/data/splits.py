"""A dataset as it is stored, and its division into what a run trains on, validates by and tests on."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from iterand_tf.data.examples import ArrayExamples, Examples
from iterand_tf.errors import DataError

# Datasets whose decoded images take more bytes than this are decoded as they are read.
MEMORY_LIMIT_BYTES = 4 * 2**30
_DEFAULT_IMAGE_SIZE = 224
_TEST_SEED = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """What identifies one part of a dataset as it is stored, to find out later that it has changed.

    The sum is of the names of its examples, or of the dataset's name and version.
    """

    num_examples: int
    sha256: str

    @classmethod
    def of_names(cls, names: Iterable[bytes], num_examples: int) -> Self:
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
    """What a network is tested on; `sources` has the stored parts of the dataset that were looked at, by name."""

    test: Examples
    class_names: tuple[str, ...]
    sources: dict[str, Source]


@dataclasses.dataclass(frozen=True)
class Splits(EvaluationSplit):
    """What a run trains on, chooses by and reports.

    Args:
        image_size: pixels of the square that images are resized to as they are read; 0 where they are in memory.
        notes: what a user should know of how the parts came about, a sentence each.
    """

    train: Examples
    validation: Examples | None
    image_size: int = 0
    notes: tuple[str, ...] = ()


class Part(Protocol):
    """Stored examples: one part of a dataset, or what was taken of it."""

    @property
    def num_examples(self) -> int: ...

    @property
    def labels(self) -> np.ndarray: ...

    def source(self) -> Source: ...

    def take(self, indices: np.ndarray) -> Self: ...

    def shape_to_keep(self, image_size: int) -> tuple[int, int, int] | None:
        """The shape of all images; None where `image_size`, or a mixture of shapes, makes it necessary to resize."""
        ...

    def examples(self, num_classes: int, image_size: int, shape: Any) -> Examples:
        """The images, resized as they are read, or where `image_size` is 0 decoded now: all must have `shape` then."""
        ...


@dataclasses.dataclass(frozen=True)
class Stored:
    """A dataset as it is stored.

    Args:
        parts: "train", and where the dataset brings them "test" and "validation".
        notes: what a user should know of them, a sentence each.
    """

    class_names: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()

    def split(
        self, image_size: int, validation_split: float, test_split: float, max_train_examples: int, seed: int
    ) -> Splits:
        """Holds out what the dataset brings no part for; images of one shape that fit in memory are decoded now."""
        train, test, validation = self.parts["train"], self.parts.get("test"), self.parts.get("validation")
        notes = list(self.notes)
        if test is None:
            rest, held_out = stratified_indices(train.labels, test_split)
            train, test = train.take(rest), train.take(held_out)
            notes.append(
                f"the dataset brings no test part: {test_split:g} of each class, {len(held_out):,} images, are held "
                "out for it"
            )
        shape = train.shape_to_keep(image_size)
        if shape is None:
            image_size = image_size or _DEFAULT_IMAGE_SIZE
        else:
            num_bytes = sum(part.num_examples for part in self.parts.values()) * math.prod(shape)
            image_size = 0
            if num_bytes > MEMORY_LIMIT_BYTES:
                image_size = shape[0] if shape[0] == shape[1] else _DEFAULT_IMAGE_SIZE
                notes.append(
                    f"the decoded images would take {num_bytes / 2**30:.1f} GiB, above the limit of "
                    f"{MEMORY_LIMIT_BYTES / 2**30:.1f} GiB: they are decoded as they are read, and resized to "
                    f"{image_size} pixels"
                )
        fraction = 0.0 if validation else validation_split
        train, held_out = self._hold_out(train, fraction, max_train_examples, seed, as_read=image_size > 0)
        validation = validation or held_out

        num_classes = len(self.class_names)
        return Splits(
            test.examples(num_classes, image_size, shape),
            self.class_names,
            {name: part.source() for name, part in self.parts.items()},
            train.examples(num_classes, image_size, shape),
            validation.examples(num_classes, image_size, shape) if validation else None,
            image_size,
            tuple(notes),
        )

    def test_split(self, image_size: int, test_split: float) -> EvaluationSplit:
        """What `split` would test on; where the dataset brings a test part, the others are not read."""
        name = "test" if "test" in self.parts else "train"
        part = self.parts[name]
        test = part if name == "test" else part.take(stratified_indices(part.labels, test_split)[1])
        shape = None if image_size else test.shape_to_keep(0)
        examples = test.examples(len(self.class_names), image_size, shape)
        return EvaluationSplit(examples, self.class_names, {name: part.source()})

    def _hold_out(self, train, validation_split, max_train_examples, seed, as_read):
        """Divides the training part into what trains and what validates, or None."""
        order = np.random.default_rng(seed).permutation(train.num_examples)
        count = num_held_out(train.num_examples, validation_split)
        chosen = order[count:][: max_train_examples or None]
        return train.take(np.sort(chosen)), train.take(np.sort(order[:count])) if count else None


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
    """(Rest, test) indices of a dataset that brings no test part: a fraction of each class, at least one example.

    It is the same part whatever the run's seed, so that runs of several seeds are tested on the same examples.
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


def check_labels(examples: ArrayExamples) -> None:
    """Raises DataError if a label is outside the class range."""
    outside = (examples.labels < 0) | (examples.labels >= examples.num_classes)
    if outside.any():
        raise DataError(
            f"the label {examples.labels[outside][0]} is outside the class range 0 to {examples.num_classes - 1}; "
            "mend the dataset."
        )
