"""The figures of each epoch, speed and flips of masks among them, in metrics.csv and for TensorBoard."""

import csv
import errno
import io
import pathlib
import time

import keras
import tensorflow as tf

from iterand_tf.callbacks import EpochMasks, current_step
from iterand_tf.data.tensorflow_errors import reason
from iterand_tf.files import write_atomically
from iterand_tf.sparsity_report import sparsity_report


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second`, the training speed of the epoch without validation, to `logs`."""

    def __init__(self, images_per_epoch: int, batch_size: int):
        super().__init__()
        self._images_per_epoch = images_per_epoch
        self._batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()
        self._seconds = None

    def on_train_batch_end(self, batch, logs=None):
        self._images = min((batch + 1) * self._batch_size, self._images_per_epoch)

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        logs["images_per_second"] = self._images / (self._seconds or time.perf_counter() - self._start)


class MetricsFile(keras.callbacks.Callback):
    """Keeps metrics.csv: a header and one line an epoch, epochs counted from 1; rewritten whole, atomically.

    When training resumes after `first_epoch` epochs, lines of epochs that are done again are dropped.
    """

    def __init__(self, path: pathlib.Path, first_epoch: int):
        super().__init__()
        self._path = path
        self.rows = [row for row in read_metrics(path) if int(row["epoch"]) <= first_epoch]

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, "step": current_step(self.model)}
        self.rows.append({name: str(value) for name, value in (row | logs).items()})
        text = io.StringIO()
        # An epoch that was interrupted may lack a figure.
        names = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self._path, text.getvalue())


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a metrics file, or none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class EventFile:
    """A file of TensorBoard's, whose errors of writing are OSErrors, as those of the run's other files are.

    TensorFlow writes it. Its errors, such as one of a full disk, are of the same classes as those of a training step,
    such as one of full memory, so they are told apart by where they come from.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._writer: tf.summary.SummaryWriter | None = None

    def write(self, epoch: int, figures: dict[str, float]) -> None:
        """Adds the figures of an epoch."""
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._directory))
            with self._writer.as_default(step=epoch):
                for name, figure in figures.items():
                    tf.summary.scalar(name, figure)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise OSError(errno.EIO, reason(error)) from error


class EventFiles(keras.callbacks.Callback):
    """Writes the figures of each epoch for TensorBoard: those of training to train/, of validation to validation/."""

    def __init__(self, directory: pathlib.Path):
        super().__init__()
        self._train, self._validation = EventFile(directory / "train"), EventFile(directory / "validation")

    def on_epoch_end(self, epoch, logs=None):
        figures = logs | {"learning_rate": float(self.model.optimizer.learning_rate)}
        validation = {name: figures.pop(name) for name in logs if name.startswith("val_")}
        self._train.write(epoch, {f"epoch_{name}": figure for name, figure in figures.items()})
        if validation:
            self._validation.write(epoch, {f"epoch_{name[4:]}": figure for name, figure in validation.items()})


class MaskChanges(keras.callbacks.Callback):
    """Writes each Subnet layer's `mask_flip_ratio` and `sparsity` after each epoch.

    It also adds `mask_flip_ratio`, of all masks together, to `logs`, where `Rerandomize` has not done so. An epoch that
    was interrupted is left out, as its first masks are not known any more.
    """

    def __init__(self, directory: pathlib.Path, steps_per_epoch: int):
        super().__init__()
        self._event_file, self._steps_per_epoch = EventFile(directory), steps_per_epoch
        self._masks: EpochMasks | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._masks is None and current_step(self.model) % self._steps_per_epoch == 0:
            self._masks = EpochMasks(self.model)

    def on_epoch_end(self, epoch, logs=None):
        layers = sparsity_report(self.model).layers
        if not layers:
            return
        before, self._masks = self._masks, EpochMasks(self.model)
        figures = {f"sparsity/{layer.name}": layer.sparsity for layer in layers}
        if before:
            if "mask_flip_ratio" not in logs:
                logs["mask_flip_ratio"] = before.flip_ratio(self._masks)
            ratios = zip(layers, before.flip_ratios(self._masks), strict=True)
            figures |= {f"mask_flip_ratio/{layer.name}": ratio for layer, ratio in ratios}
        self._event_file.write(epoch, figures)
