"""The digits that come with scikit-learn."""

import numpy as np

from iterand_tf.data.examples import ArrayExamples
from iterand_tf.data.splits import Splits, split_arrays


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
    return split_arrays(examples.take(train), examples.take(test), validation_split, max_train_examples, seed, names)
