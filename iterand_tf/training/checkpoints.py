"""What a run continues from: network, optimizer, place in the data, metrics and callbacks, in memory and on disk.

A checkpoint is a NumPy archive, whose entries carry checksums, written whole or not at all. Where the newest cannot be
read, the one before it is used.
"""

import json
import pathlib
import sys
from typing import Any

import keras
import numpy as np

from iterand_tf.callbacks import Rerandomize, current_step
from iterand_tf.errors import DivergedError, ModelDirError
from iterand_tf.files import open_atomically

DIVERGED = "train anew with a lower --learning_rate. The checkpoints are those of before."
_PROGRESS = "progress"


class Checkpoints:
    """Saves and finds states, numbered by training steps, in a directory that is created when the first is saved."""

    def __init__(self, directory: pathlib.Path, max_to_keep: int = 2):
        self._directory = directory
        self._max_to_keep = max_to_keep
        self._unreadable: set[pathlib.Path] = set()

    def files(self) -> list[pathlib.Path]:
        """The files that are there, the newest first."""
        return sorted(self._directory.glob("step-*.npz"), reverse=True)

    def save(self, step: int, progress: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Writes a state, and removes old ones; if it cannot be written, the earlier ones are intact."""
        path = self._directory / f"step-{step:010}.npz"
        self._directory.mkdir(exist_ok=True)
        entries: dict[str, Any] = {**arrays, _PROGRESS: np.frombuffer(json.dumps(progress).encode(), np.uint8)}
        with open_atomically(path) as file:
            np.savez(file, **entries)
        # Files of later steps could not be read when the run was continued at an earlier one.
        later = [file for file in self.files() if file > path]
        earlier = [file for file in self.files() if file < path and file not in self._unreadable]
        left = self._directory.glob(".step-*.tmp")
        self._unreadable.discard(path)
        for old in (*later, *self._unreadable, *earlier[self._max_to_keep - 1 :], *left):
            old.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Progress and arrays of the newest state that can be read, or ModelDirError; None if none was saved."""
        files = self.files()
        for path in files:
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                return json.loads(arrays.pop(_PROGRESS).tobytes()), arrays
            except Exception as error:
                # A damaged archive fails in many ways.
                print(f"warning: {path} cannot be read ({error}); trying the checkpoint before it", file=sys.stderr)
                self._unreadable.add(path)
        if files:
            raise ModelDirError(
                f"no checkpoint in {self._directory} can be read; restore one, or train anew elsewhere."
            )
        return None


class TrainingState:
    """The state of a run in memory, and its way to and from the checkpoints; the model's optimizer must be built.

    `batch` counts the steps done after `epoch` whole epochs; `best_accuracy` is -1 before the first validation.
    """

    def __init__(self, model: keras.Model, checkpoints: Checkpoints, rerandomize: Rerandomize | None = None):
        self._model, self._checkpoints, self._rerandomize = model, checkpoints, rerandomize
        self.epoch, self.batch, self.best_accuracy, self.seconds = 0, 0, -1.0, 0.0
        self._epoch_state: dict[str, np.ndarray] = {}

    def save(self, write: bool = True) -> None:
        """Saves a checkpoint; with `write` False only takes part in reading values that all workers hold together."""
        self.check_finite()
        arrays = _named("model", self._model.variables) | _named("optimizer", self._model.optimizer.variables)
        if self.batch:
            arrays |= _named("metric", self._model.metrics_variables)
            arrays |= self._rerandomize.get_state() if self._rerandomize else {}
        progress = {name: getattr(self, name) for name in ("epoch", "batch", "best_accuracy", "seconds")}
        if write:
            self._checkpoints.save(self.step, progress, arrays)

    def check_finite(self) -> None:
        """Raises DivergedError if a value of the network is NaN or infinite."""
        for variable in self._model.variables:
            if variable.dtype.startswith(("float", "bfloat")) and not np.isfinite(np.asarray(variable)).all():
                raise DivergedError(f"{variable.path} is not finite after step {self.step}; {DIVERGED}")

    def restore(self) -> bool:
        """Restores the newest checkpoint; False if there is none."""
        found = self._checkpoints.newest()
        if found is None:
            return False
        progress, arrays = found
        vars(self).update(progress)
        _assign("model", self._model.variables, arrays)
        _assign("optimizer", self._model.optimizer.variables, arrays)
        of_network = ("model/", "optimizer/")
        self._epoch_state = {name: array for name, array in arrays.items() if not name.startswith(of_network)}
        return True

    def continue_epoch(self) -> None:
        """Gives callbacks their state back, after the epoch that was interrupted has begun again."""
        if self._rerandomize and self._epoch_state:
            self._rerandomize.set_state(self._epoch_state)

    def continue_metrics(self) -> None:
        """Adds the metrics of the epoch's part before the interruption; call it after a step, when metrics exist."""
        if not self._epoch_state:
            return
        saved = [array for name, array in sorted(self._epoch_state.items()) if name.startswith("metric/")]
        for variable, part in zip(self._model.metrics_variables, saved, strict=True):
            variable.assign(np.asarray(variable) + part)
        self._epoch_state = {}

    @property
    def step(self) -> int:
        """Training steps done."""
        return current_step(self._model)


def restore_model(model: keras.Model, checkpoints: Checkpoints) -> bool:
    """Restores the network alone from the newest checkpoint; False if there is none."""
    found = checkpoints.newest()
    if found is None:
        return False
    _assign("model", model.variables, found[1])
    return True


def _named(part: str, variables: list[Any]) -> dict[str, np.ndarray]:
    return {_name(part, number, variable): np.asarray(variable) for number, variable in enumerate(variables)}


def _name(part, number, variable):
    # A model's layers have names of their own; an optimizer's path begins with a name that Keras counts.
    return f"{part}/{number:05}/{variable.path if part == 'model' else variable.name}"


def _assign(part, variables, arrays):
    shapes = {name: array.shape for name, array in arrays.items() if name.startswith(f"{part}/")}
    wanted = {_name(part, number, variable): tuple(variable.shape) for number, variable in enumerate(variables)}
    if shapes != wanted:
        name = sorted(shapes.items() ^ wanted.items())[0][0]
        raise ModelDirError(
            f"the newest checkpoint is of another network (they differ in {name}); give the flags of its run."
        )
    for number, variable in enumerate(variables):
        variable.assign(arrays[_name(part, number, variable)])
