"""SparsityScheduler, the callback that changes the sparsity of a model while it is trained."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from iterand_tf import checks
from iterand_tf.callbacks.optimizer_steps import OptimizerSteps, attach_state
from iterand_tf.layers import resume_sparsity, set_sparsity, share_kept, subnet_layers


class SparsityScheduler(keras.callbacks.Callback):
    """Raises the sparsity of all Subnet layers of a model on a schedule, in plain `model.fit`.

    Every `frequency` steps of the optimizer, all layers get the sparsity that the schedule gives for the step, one
    number for all, whatever they had before. Functions that are compiled stay as they are. With `steps_per_execution`
    above 1 the sparsity changes between executions only. Put it after `Rerandomize` in the list, which then re-draws
    what the step before has left out.

    Layers with N:M masks need a sparsity of at least `1 - N / M` from the first step on.

    Kernels with `mask="global"` are ranked together at the same events, also where the schedule gives the same number
    again: `SparsityScheduler(0.8, frequency=100)` shares out again every 100 steps.

    Args:
        schedule: a sparsity in [0, 1), a function of the step that gives one, or a pruning schedule of
            tensorflow-model-optimization, `PolynomialDecay` or `ConstantSparsity`. Such a schedule says itself at which
            steps it prunes; between them the sparsity stays, and before the first one it is 0. A `PolynomialDecay`
            reaches its end only where its `frequency` divides `end_step - begin_step`.
        frequency: steps between two events, a whole number of at least 1.

    Raises:
        ValueError: if an argument is out of its range, or, in training, if the schedule gives no sparsity or lowers it,
            or the model has no Subnet layer.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017, section 3, for the polynomial schedule.

    Example:

    >>> import keras, numpy as np
    >>> from iterand_tf import SparsityScheduler, SubnetDense
    >>> model = keras.Sequential([keras.Input((8,)), SubnetDense(10, method="magnitude_pruning")])
    >>> model.compile("sgd", "mse")
    >>> scheduler = SparsityScheduler(lambda step: 0.8 * min(step / 4, 1))
    >>> history = model.fit(np.ones((8, 8)), np.ones((8, 10)), batch_size=2, verbose=0, callbacks=[scheduler])
    >>> model.layers[0].sparsity, model.layers[0].num_kept
    (0.8, 16)
    """

    def __init__(self, schedule: float | Callable[[int], Any], frequency: int = 1):
        super().__init__()
        if not callable(schedule):
            checks.number("schedule", schedule, minimum=0, below=1)
        self._schedule = schedule
        self._frequency = checks.whole_number("frequency", frequency, minimum=1)
        self._sparsity: float | None = None
        self._begins = False
        self._step = 0

    def on_train_begin(self, logs=None):
        # Other callbacks may restore the model now, so its step is not read yet.
        self._begins, self._sparsity = True, None

    def on_epoch_begin(self, epoch, logs=None):
        self._steps = OptimizerSteps(self.model)
        if self._begins:
            self._begins = False
            if not subnet_layers(self.model):
                raise ValueError(f"SparsityScheduler needs a model with Subnet layers. Received: {self.model.name=}")
            self._step = self._steps.at_begin
            # The newest event, which a model that is trained on has behind it.
            self._apply([self._step - self._step % self._frequency])

    def on_train_batch_end(self, batch, logs=None):
        previous, self._step = self._step, self._steps.after(batch)
        self._apply([step for step in range(previous + 1, self._step + 1) if step % self._frequency == 0])

    def _apply(self, events):
        """Applies what the schedule says for the last of these steps."""
        values = [value for step in events if (value := self._value(step)) is not None]
        if not values:
            return
        value = checks.number("sparsity", values[-1], minimum=0, below=1)
        if self._sparsity is not None and value < self._sparsity:
            raise ValueError(
                "a sparsity schedule never lowers the sparsity, since what was removed is lost. "
                f"Received: {self._sparsity} before step {self._step} and {value} at it"
            )
        attach_state(self.model)
        if self._sparsity is None:
            resume_sparsity(self.model, value)
        elif value == self._sparsity:
            share_kept(self.model)
        else:
            set_sparsity(self.model, value)
        self._sparsity = value

    def _value(self, step):
        """The sparsity from a step on; None to keep the one before."""
        value = self._schedule(step) if callable(self._schedule) else self._schedule
        if isinstance(value, tuple):
            prunes, value = value
            if not bool(np.asarray(prunes)):
                return 0.0 if step == 0 else None
        value = np.asarray(value)
        if value.ndim or value.dtype.kind not in "fiu":
            raise checks.ArgumentError("schedule", "one that gives a number for each step", value)
        # The shortest digits: as a double, the float32 0.8 would be 0.800000012.
        return float(str(value))
