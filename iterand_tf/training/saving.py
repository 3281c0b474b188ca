"""What training saves after each epoch: the best network, and the state that --resume continues from."""

import math
import os
import pathlib
import time
from collections.abc import Callable

import keras

from iterand_tf.callbacks import current_step
from iterand_tf.errors import DivergedError
from iterand_tf.interruption import InterruptedRunError
from iterand_tf.training.checkpoints import DIVERGED, TrainingState


class ModelFile:
    """A `.keras` file of a network without its optimizer, which a reader sees whole, old or new."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._copy: keras.Model | None = None

    def write(self, model: keras.Model) -> None:
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
        best_model: the file of the best network by `val_accuracy`; without validation, of the last.
        checkpoint_steps: steps between two checkpoints inside an epoch; 0 for none.
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
        self._state.continue_metrics()
        if not math.isfinite(loss := float(logs["loss"])):
            raise DivergedError(f"the loss is {loss} after step {self._state.step}; {DIVERGED}")
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
