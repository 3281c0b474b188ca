"""The digits that come with scikit-learn."""

import numpy as np

from iterand_tf.data.examples import ArrayExamples
from iterand_tf.data.splits import Source, Stored


class _Digits(ArrayExamples):
    def source(self) -> Source:
        return Source.of_names([b"digits"], self.num_examples)

    def shape_to_keep(self, image_size):
        return self.image_shape

    def examples(self, num_classes, image_size, shape):
        return self


def open_digits() -> Stored:
    """The 1,797 8x8 digits that come with scikit-learn; always the same fifth of them, stratified, is the test set."""
    import sklearn.datasets
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    examples = _Digits(images, digits.target.astype(np.int32), num_classes=10)
    train, test = sklearn.model_selection.train_test_split(
        np.arange(examples.num_examples), test_size=0.2, random_state=0, stratify=digits.target
    )
    return Stored(tuple(map(str, range(10))), {"train": examples.take(train), "test": examples.take(test)})
