"""What a run trains on, validates by and tests on, and how the validation part is chosen."""

import dataclasses

import numpy as np

from iterand_tf.data.examples import ArrayExamples, Examples
from iterand_tf.errors import DataError


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


def split_arrays(
    train: ArrayExamples,
    test: ArrayExamples,
    validation_split: float,
    max_train_examples: int,
    seed: int,
    class_names: tuple[str, ...],
) -> Splits:
    """Holds out a part of the training examples; DataError if a label is outside the class range."""
    for examples in (train, test):
        outside = (examples.labels < 0) | (examples.labels >= examples.num_classes)
        if outside.any():
            raise DataError(
                f"the label {examples.labels[outside][0]} is outside the class range 0 to {examples.num_classes - 1}; "
                "mend the dataset."
            )
    chosen, held_out = validation_indices(train.num_examples, validation_split, max_train_examples, seed)
    validation = train.take(held_out) if len(held_out) else None
    return Splits(train.take(chosen), validation, test, class_names)
