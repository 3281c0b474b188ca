"""The digits that come with scikit-learn."""

import numpy as np

from iterand_tf.data.examples import ArrayExamples
from iterand_tf.data.splits import EvaluationSplit, Source, Splits, split_arrays

_CLASS_NAMES = tuple(map(str, range(10)))


def load_digits(validation_split: float, max_train_examples: int, seed: int) -> Splits:
    """The 1,797 8x8 digits that come with scikit-learn; always the same fifth of them, stratified, is the test set."""
    train, test = _train_and_test()
    sources = {"train": _source(train), "test": _source(test)}
    train, validation = split_arrays(train, None, validation_split, max_train_examples, seed)
    return Splits(test, _CLASS_NAMES, sources, train, validation)


def load_digits_test() -> EvaluationSplit:
    """The test set of `load_digits`."""
    _, test = _train_and_test()
    return EvaluationSplit(test, _CLASS_NAMES, {"test": _source(test)})


def _train_and_test():
    import sklearn.datasets
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    examples = ArrayExamples(images, digits.target.astype(np.int32), num_classes=10)
    train, test = sklearn.model_selection.train_test_split(
        np.arange(examples.num_examples), test_size=0.2, random_state=0, stratify=digits.target
    )
    return examples.take(train), examples.take(test)


def _source(examples):
    return Source.of_names([b"digits"], examples.num_examples)
