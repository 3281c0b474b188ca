"""Callbacks of main.py's training: speed, metrics.csv, shared statistics, best.keras, last state, one line an epoch."""

import contextlib
import csv
import errno
import io
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from iterand_tf.callbacks import current_step
from iterand_tf.data.reading import reason
from iterand_tf.errors import DivergedError
from iterand_tf.files import write_atomically
from iterand_tf.interruption import InterruptedRunError
from iterand_tf.training.state import DIVERGED, TrainingState


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


class ShareStatistics(keras.callbacks.Callback):
    """Before validation, gives all replicas the first one's moving statistics, which are those that are saved.

    Where BatchNormalization is not synchronized each replica has its own, and validation would be of several networks.

    Args:
        of_chief: function that gives the chief's array on all workers.
    """

    def __init__(self, of_chief: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self._of_chief = of_chief

    def on_test_begin(self, logs=None):
        variables = [each for each in self.model.non_trainable_variables if each.name.startswith("moving_")]
        arrays = [np.asarray(variable) for variable in variables]
        if not arrays:
            return
        ends = np.cumsum([array.size for array in arrays])
        shared = np.split(self._of_chief(np.concatenate([array.ravel() for array in arrays])), ends[:-1])
        for variable, array, values in zip(variables, arrays, shared, strict=True):
            variable.assign(values.reshape(array.shape).astype(array.dtype))


class ModelFile:
    """A `.keras` file of a network without its optimizer, which a reader sees whole, old or new.

    Args:
        path: of the file.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._copy: keras.Model | None = None

    def write(self, model: keras.Model) -> None:
        """Writes the model as it is now."""
        # Keras saves the optimizer with a compiled model, and compiles what keras.models.clone_model gives.
        if self._copy is None:
            self._copy = type(model).from_config(model.get_config())
        self._copy.set_weights(model.get_weights())
        # Keras decides by the name's ending what to write.
        temporary = self._path.with_name(f".tmp_{self._path.name}")
        try:
            self._copy.save(temporary)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


class SaveState(keras.callbacks.Callback):
    """Saves the state that `--resume` continues from, and at each epoch's end the best network so far.

    It stands last among the callbacks. Where a run has several workers, all have one, and one writes.

    Args:
        state: of the run.
        best_model: the file of the best network by `val_accuracy`; without validation, of the last.
        steps_per_epoch: of a whole epoch.
        checkpoint_steps: steps between two checkpoints inside an epoch; 0 for none.
        writes: whether this process writes files.
        should_stop: number of the signal that asks the run to stop, or None; called after each step.
        final_sparsity_step: networks before this step are less sparse than what is asked for, and never the best.
    """

    def __init__(
        self,
        state: TrainingState,
        best_model: ModelFile,
        steps_per_epoch: int,
        checkpoint_steps: int,
        writes: bool,
        should_stop: Callable[[], int | None],
        final_sparsity_step: int,
    ):
        super().__init__()
        self._state, self._best_model, self._writes = state, best_model, writes
        self._final_sparsity_step = final_sparsity_step
        self._steps_per_epoch = steps_per_epoch
        self._checkpoint_steps = checkpoint_steps
        self._should_stop = should_stop
        self._first_batch = self._saved_step = 0

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter() - self._state.seconds
        self._first_batch = self._state.batch
        self._saved_step = current_step(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self._state.continue_epoch()

    def on_train_batch_end(self, batch, logs=None):
        if self._state.inside_epoch:
            self._state.continue_metrics()
        self._check_finite(logs)
        done = self._first_batch + batch + 1
        signal_number = self._should_stop()
        if done >= self._steps_per_epoch:
            # The end of the epoch saves.
            return
        step = current_step(self.model)
        due = self._checkpoint_steps and step // self._checkpoint_steps > self._saved_step // self._checkpoint_steps
        if due or signal_number:
            self._save(done)
        if signal_number:
            raise InterruptedRunError(signal_number)

    def on_epoch_end(self, epoch, logs=None):
        self._state.check_finite()
        accuracy = logs.get("val_accuracy")
        if current_step(self.model) < self._final_sparsity_step:
            accuracy = None
        if accuracy is None or accuracy > self._state.best_accuracy:
            if self._writes:
                self._best_model.write(self.model)
            self._state.best_accuracy = accuracy or 0.0
        self._state.epoch, self._first_batch = epoch + 1, 0
        self._save(0)
        if signal_number := self._should_stop():
            raise InterruptedRunError(signal_number)

    def _save(self, batch):
        self._state.batch = batch
        self._state.seconds = time.perf_counter() - self._start
        self._state.save(self._writes)
        self._saved_step = current_step(self.model)

    def _check_finite(self, logs):
        if not math.isfinite(float(logs["loss"])):
            raise DivergedError(f"the loss is {float(logs['loss'])} after step {self._state.step}; {DIVERGED}")


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
