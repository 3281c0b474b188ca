"""SparsitySchedule, the callback that changes the sparsity of a model while it is trained."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from iterand_tf import checks
from iterand_tf.callbacks import attach_state, current_step, step_after_batch
from iterand_tf.layers import GlobalMasks, subnet_layers
from iterand_tf.layers.walk import all_layers


class SparsitySchedule(keras.callbacks.Callback):
    """Raises the sparsity of all Subnet layers of a model on a schedule, in plain `model.fit`.

    Each training step is done at the sparsity that the schedule gives for it, one number for all layers, whatever they
    had before. Functions that are compiled stay as they are. With `steps_per_execution` above 1 the sparsity changes
    between executions only. Let it stand after `Rerandomize` in the list, which then re-draws what the step before has
    left out.

    Args:
        schedule: a function of the step that gives a sparsity in [0, 1), or a pruning schedule of
            tensorflow-model-optimization, `PolynomialDecay` or `ConstantSparsity`. Such a schedule says at which steps
            it prunes; between them the sparsity stays, and before the first one it is 0. A `PolynomialDecay` reaches
            its end only where `frequency` divides `end_step - begin_step`.

    Raises:
        ValueError: in training, if the schedule gives no sparsity or lowers it, or the model has no Subnet layer.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017, section 3, for the polynomial schedule.

    Example:

    >>> import keras, numpy as np
    >>> from iterand_tf import SparsitySchedule, SubnetDense
    >>> model = keras.Sequential([keras.Input((8,)), SubnetDense(10, method="magnitude_pruning")])
    >>> model.compile("sgd", "mse")
    >>> schedule = SparsitySchedule(lambda step: 0.8 * min(step / 4, 1))
    >>> history = model.fit(np.ones((8, 8)), np.ones((8, 10)), batch_size=2, verbose=0, callbacks=[schedule])
    >>> model.layers[0].sparsity, model.layers[0].num_kept
    (0.8, 16)
    """

    def __init__(self, schedule: Callable[[int], Any]):
        super().__init__()
        if not callable(schedule):
            raise checks.ArgumentError("schedule", "a function of the step or a pruning schedule of tfmot", schedule)
        self._schedule = schedule
        self._sparsity: float | None = None
        self._begins = False
        self._step = self._epoch_step = 0

    def on_train_begin(self, logs=None):
        # Other callbacks may restore the model now, so its step is not read yet.
        self._begins, self._sparsity = True, None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_step = current_step(self.model)
        if self._begins:
            self._begins = False
            if not any(subnet_layers(self.model)):
                raise ValueError(f"SparsitySchedule needs a model with Subnet layers. Received: {self.model.name=}")
            self._apply(self._epoch_step - 1, self._epoch_step)

    def on_train_batch_end(self, batch, logs=None):
        self._apply(self._step, step_after_batch(self.model, self._epoch_step, batch))

    def _apply(self, previous, step):
        """Does what is due after the previous step and up to this one."""
        self._step = step
        values = [self._value(each) for each in range(previous + 1, step + 1)]
        value = next((each for each in reversed(values) if each is not None), None)
        if value is None or value == self._sparsity:
            return
        checks.number("sparsity", value, minimum=0, below=1)
        if self._sparsity is not None and value < self._sparsity:
            raise ValueError(
                "a sparsity schedule never lowers the sparsity, since what was removed is lost. "
                f"Received: {self._sparsity} before step {step} and {value} at it"
            )
        attach_state(self.model)
        set_sparsity(self.model, value)
        self._sparsity = value

    def _value(self, step):
        """The sparsity from a step on; None for that of the step before."""
        value = self._schedule(step)
        if isinstance(value, tuple):
            prunes, value = value
            if not bool(np.asarray(prunes)):
                return 0.0 if step == 0 else None
        value = np.asarray(value)
        if value.ndim or value.dtype.kind not in "fiu":
            raise checks.ArgumentError("schedule", "one that gives a number for each step", value)
        # The shortest digits: as a double, the float32 0.8 would be 0.800000012.
        return float(str(value))


def set_sparsity(model: keras.Model, sparsity: float) -> None:
    """Changes the sparsity of all Subnet layers of a model, from the next call on and without new traces.

    Args:
        model: a model with Subnet layers.
        sparsity: fraction removed of each kernel, or of all together where they share a threshold, in [0, 1).

    Raises:
        ValueError: if it is out of its range, or a mask has no other sparsity.

    Example:

    >>> from iterand_tf import SubnetDense, sparsity_report
    >>> model = keras.Sequential([keras.Input((4,)), SubnetDense(5)])
    >>> set_sparsity(model, 0.75)
    >>> sparsity_report(model).total.num_kept
    5
    """
    groups = [layer for layer in all_layers(model) if isinstance(layer, GlobalMasks)]
    grouped = {id(layer) for group in groups for layer in subnet_layers(group)}
    for group in groups:
        group.set_sparsity(sparsity)
    for layer in subnet_layers(model):
        if id(layer) not in grouped:
            layer.set_sparsity(sparsity)
