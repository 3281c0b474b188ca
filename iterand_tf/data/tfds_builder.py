"""Finds a dataset of TensorFlow Datasets, and prepares it where that was not done before."""

import contextlib
import os
import pathlib
from typing import Any

import tensorflow as tf

from iterand_tf.errors import DataError, first_line


def prepared_builder(name: str, data_dir: str) -> Any:
    """TFDS's builder of a dataset, which is downloaded and prepared if it is not yet."""
    import tensorflow_datasets as tfds

    if "[" in name:
        raise DataError(
            f"--dataset={name} names a part of a dataset; give the dataset's name alone, and choose parts by "
            "--validation_split, --test_split and --max_train_examples."
        )
    if data_dir and not tf.io.gfile.isdir(os.path.expanduser(data_dir)):
        raise DataError(f"--data_dir={data_dir} does not exist; give the directory that holds the prepared datasets.")
    try:
        builder = tfds.builder(name, data_dir=os.path.expanduser(data_dir) or None, file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"--dataset={name} is not digits, folder:PATH or a dataset that TFDS knows ({first_line(error)})."
        ) from error
    except Exception as error:
        # Whatever reads the dataset's description fails in its own way.
        raise DataError(
            f"--dataset={name} in --data_dir={data_dir} is damaged ({first_line(error)}); prepare it anew."
        ) from error
    if not builder.is_prepared():
        _prepare(builder, name, data_dir)
    return builder


def _prepare(builder, name, data_dir):
    import tensorflow_datasets as tfds

    root = pathlib.Path(os.path.expanduser(data_dir) or tfds.core.constants.DATA_DIR)
    manual = root / "downloads" / "manual"
    if builder.name == "imagenet2012" and not (manual / "ILSVRC2012_img_train.tar").exists():
        raise DataError(
            f"--dataset={name} is not prepared in {builder.data_dir}; put ILSVRC2012_img_train.tar and "
            f"ILSVRC2012_img_val.tar from image-net.org into {manual} and start again, or give --data_dir."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        _remove_empty_folders(root / "downloads")
        _remove_empty_folders(root / builder.name)
        raise DataError(
            f"--dataset={name} is not prepared in {builder.data_dir} and could not be downloaded or prepared "
            f"({first_line(error)}); give --data_dir or TFDS_DATA_DIR."
        ) from error


def _remove_empty_folders(top):
    """Removes what TFDS has made below a folder, and the folder itself, where there are no files in it."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def image_and_label(builder: Any, name: str) -> tuple[str, str]:
    """The keys of images and labels in the examples; DataError if they are something else."""
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    if keys and len(keys) == 2:
        image, label = keys
        features = builder.info.features
        if isinstance(features[image], tfds.features.Image) and isinstance(features[label], tfds.features.ClassLabel):
            return image, label
    raise DataError(f"--dataset={name} is not an image classification dataset; choose one with images and labels.")
