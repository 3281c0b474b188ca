"""The figures of each epoch: speed and flips of masks, in metrics.csv, for TensorBoard and as a printed line."""

import contextlib
import csv
import errno
import io
import pathlib
import time
from collections.abc import Iterator

import keras
import tensorflow as tf

from iterand_tf.callbacks import current_step
from iterand_tf.data.tensorflow_errors import reason
from iterand_tf.files import write_atomically


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second`, the training speed of the epoch without validation, to `logs`.

    Args:
        images_per_epoch: training images in an epoch.
        batch_size: of a step, all replicas together.
    """

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

    Args:
        path: of the file; when training resumes, lines of epochs that are done again are dropped.
        first_epoch: epochs done before.
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


class EventFiles(keras.callbacks.TensorBoard):
    """TensorBoard's files, whose errors of writing are OSErrors, as those of the run's other files are.

    TensorFlow writes these files. Its errors, such as one of a full disk, are of the same classes as those of a
    training step, such as one of full memory, so they are told apart by where they come from.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__(str(directory), write_graph=False)

    def set_model(self, model):
        with errors_as_oserror():
            super().set_model(model)

    def on_train_begin(self, logs=None):
        with errors_as_oserror():
            super().on_train_begin(logs)

    def on_test_end(self, logs=None):
        with errors_as_oserror():
            super().on_test_end(logs)

    def on_epoch_end(self, epoch, logs=None):
        with errors_as_oserror():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        with errors_as_oserror():
            super().on_train_end(logs)


@contextlib.contextmanager
def errors_as_oserror() -> Iterator[None]:
    """Turns errors of TensorFlow's writing into OSErrors."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, reason(error)) from error


class EpochLine(keras.callbacks.Callback):
    """Prints one line an epoch, for output that is not a terminal.

    Args:
        epochs: of the whole run.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        print(f"epoch {epoch + 1}/{self._epochs}  {values}", flush=True)
