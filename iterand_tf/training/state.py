"""Everything that a run continues from: the network, its optimizer, the place in the data, metrics and callbacks."""

from typing import Any

import keras
import numpy as np

from iterand_tf.callbacks import Rerandomize, current_step
from iterand_tf.errors import DivergedError, ModelDirError
from iterand_tf.training.checkpoints import Checkpoints

DIVERGED = "train anew with a lower --learning_rate. The checkpoints are those of before."


class TrainingState:
    """The state of a run in memory, and its way to and from the checkpoints.

    Args:
        model: built and compiled, its optimizer built too.
        checkpoints: of the run.
        rerandomize: the run's callback, if it has one.

    Attributes:
        epoch: epochs done.
        batch: steps done in the epoch after those.
        best_accuracy: the best validation accuracy so far; -1 before the first.
        seconds: spent in training.
    """

    def __init__(self, model: keras.Model, checkpoints: Checkpoints, rerandomize: Rerandomize | None = None):
        self._model, self._checkpoints, self._rerandomize = model, checkpoints, rerandomize
        self.epoch, self.batch, self.best_accuracy, self.seconds = 0, 0, -1.0, 0.0
        self._epoch_state: dict[str, np.ndarray] = {}

    def save(self, write: bool = True) -> None:
        """Saves a checkpoint; with `write` False only takes part in reading values that all workers hold together.

        Raises:
            DivergedError: if a value of the network is not finite.
            OSError: if the checkpoint cannot be written.
        """
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
        """Restores the newest checkpoint; False if there is none.

        Raises:
            ModelDirError: if none of those that are there can be read, or it is of another network.
        """
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
        saved = [array for name, array in sorted(self._epoch_state.items()) if name.startswith("metric/")]
        for variable, part in zip(self._model.metrics_variables, saved, strict=True):
            variable.assign(np.asarray(variable) + part)
        self._epoch_state = {}

    @property
    def step(self) -> int:
        """Training steps done."""
        return current_step(self._model)

    @property
    def inside_epoch(self) -> bool:
        """Whether metrics of the epoch are still to be continued."""
        return bool(self._epoch_state)


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
