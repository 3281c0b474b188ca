"""Callbacks of main.py's training: speed, metrics.csv, best.keras, the last state, one line an epoch."""

import csv
import io
import pathlib
import time

import keras

from iterand_tf.callbacks import current_step
from iterand_tf.checkpoints import TrainingState
from iterand_tf.files import write_atomically


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second`, the training speed of the epoch without validation, to `logs`.

    Args:
        images_per_epoch: training images in an epoch.
    """

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self._images = images_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()
        self._seconds = None

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
        writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self._path, text.getvalue())


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a metrics file, or none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class SaveState(keras.callbacks.Callback):
    """At each epoch's end saves the best network so far and then the state that `--resume` continues from.

    Args:
        state: of the run.
        best_model: path of the best network by `val_accuracy`; without validation, of the last.
    """

    def __init__(self, state: TrainingState, best_model: pathlib.Path):
        super().__init__()
        self._state = state
        self._best_model = best_model

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter() - float(self._state.seconds)

    def on_epoch_end(self, epoch, logs=None):
        accuracy = logs.get("val_accuracy")
        if accuracy is None or accuracy > self._state.best_accuracy:
            save_model(self.model, self._best_model)
            self._state.best_accuracy.assign(accuracy or 0.0)
        self._state.epoch.assign(epoch + 1)
        self._state.seconds.assign(time.perf_counter() - self._start)
        self._state.save()


def save_model(model: keras.Model, path: pathlib.Path) -> None:
    """Writes a `.keras` file so that a reader sees the old or the new file, never a part."""
    temporary = path.with_name(f".tmp_{path.name}")
    model.save(temporary)
    temporary.replace(path)


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
