"""Datasets as batches for training and evaluation."""

from iterand_tf.data.augmentation import AUGMENTATIONS, KERAS_CV_POLICIES
from iterand_tf.data.digits import open_digits
from iterand_tf.data.examples import ArrayExamples, EncodedExamples, Examples
from iterand_tf.data.folder import open_folder, open_folder_test
from iterand_tf.data.shard import Shard
from iterand_tf.data.splits import EvaluationSplit, Source, Splits
from iterand_tf.data.tensorflow_errors import reading
from iterand_tf.errors import DataError

__all__ = [
    "AUGMENTATIONS",
    "KERAS_CV_POLICIES",
    "ArrayExamples",
    "EncodedExamples",
    "EvaluationSplit",
    "Examples",
    "Shard",
    "Source",
    "Splits",
    "load",
    "load_test",
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
    test_split: float = 0.2,
) -> Splits:
    """Loads a dataset and holds out a part of its training examples for validation.

    Args:
        dataset: `"digits"` (bundled with scikit-learn), a TFDS dataset's name with or without configuration and
            version, or `"folder:PATH"` with PATH/SPLIT/CLASS/*.jpg or PATH/CLASS/*.jpg.
        data_dir: TFDS root; empty for TFDS_DATA_DIR or TFDS's default.
        validation_split: fraction of the training examples held out, in [0, 1); a validation part that the dataset
            brings beside its test part is used instead.
        max_train_examples: use only so many of the others; 0 for all.
        image_size: pixels of the square images; 0 for the dataset's own, or 224 where they differ.
        seed: of the choice of validation examples.
        test_split: fraction of each class that is held out to test on where the dataset brings no test part, in
            (0, 1); always the same examples, whatever the seed.

    Raises:
        DataError: if the dataset is missing, empty or broken, or its labels are outside the class range.

    Example:

    >>> splits = load("digits")
    >>> splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples
    (1293, 144, 360)
    """
    if dataset == "digits" and image_size:
        raise DataError(f"--image_size={image_size} does not go with --dataset=digits; leave it out.")
    with reading(dataset):
        stored = open_folder(dataset[len(_FOLDER) :]) if dataset.startswith(_FOLDER) else _opened(dataset, data_dir)
        return stored.split(image_size, validation_split, test_split, max_train_examples, seed)


def load_test(
    dataset: str,
    data_dir: str = "",
    image_size: int = 0,
    test_split: float = 0.2,
    class_names: tuple[str, ...] = (),
) -> EvaluationSplit:
    """Loads only what a network is tested on, the test part of `load`'s result.

    Args:
        image_size: the `image_size` of the `Splits` that `load` gave.
        class_names: the class names of those `Splits`, where they are known; a folder of training images need not be
            there then.
    """
    with reading(dataset):
        if dataset.startswith(_FOLDER):
            stored = open_folder_test(dataset[len(_FOLDER) :], class_names)
        else:
            stored = _opened(dataset, data_dir)
        return stored.test_split(image_size, test_split)


def _opened(dataset, data_dir):
    if dataset == "digits":
        return open_digits()
    # Importing tensorflow_datasets takes seconds.
    from iterand_tf.data.tfds_images import open_tfds

    return open_tfds(dataset, data_dir)
