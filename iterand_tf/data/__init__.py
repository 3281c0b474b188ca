"""Datasets as batches for training and evaluation."""

from iterand_tf.data.augmentation import AUGMENTATIONS, KERAS_CV_POLICIES
from iterand_tf.data.digits import load_digits
from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples
from iterand_tf.data.folder import load_folder
from iterand_tf.data.reading import reading
from iterand_tf.data.shard import Shard
from iterand_tf.data.splits import Splits
from iterand_tf.data.tfds_images import load_tfds
from iterand_tf.errors import DataError

__all__ = [
    "AUGMENTATIONS",
    "KERAS_CV_POLICIES",
    "ArrayExamples",
    "EncodedExamples",
    "Examples",
    "Shard",
    "Splits",
    "load",
    "reading",
]

_FOLDER = "folder:"


def load(
    dataset: str,
    data_dir: str = "",
    validation_split: float = 0.1,
    max_train_examples: int = 0,
    image_size: int = 0,
    seed: int = 0,
) -> Splits:
    """Loads a dataset and holds out a part of its training examples for validation.

    Args:
        dataset: `"digits"` (bundled with scikit-learn), a TFDS dataset's name, or `"folder:PATH"` with
            PATH/SPLIT/CLASS/*.jpg.
        data_dir: TFDS root; empty for TFDS_DATA_DIR or TFDS's default.
        validation_split: fraction of the training examples held out, in [0, 1).
        max_train_examples: use only so many of the others; 0 for all.
        image_size: pixels of the square images; 0 for the dataset's own, or 224 where they differ.
        seed: of the choice of validation examples.

    Raises:
        DataError: if the dataset is missing, empty or broken, or its labels are outside the class range.

    Example:

    >>> splits = load("digits")
    >>> splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples
    (1293, 144, 360)
    """
    if dataset == "digits":
        if image_size:
            raise DataError(f"--image_size={image_size} does not go with --dataset=digits; leave it out.")
        return load_digits(validation_split, max_train_examples, seed)
    with reading(dataset):
        if dataset.startswith(_FOLDER):
            return load_folder(dataset[len(_FOLDER) :], image_size, validation_split, max_train_examples, seed)
        return load_tfds(dataset, data_dir, image_size, validation_split, max_train_examples, seed)
