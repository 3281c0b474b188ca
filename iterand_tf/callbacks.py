"""Keras callbacks of the method: re-randomization between training steps."""

import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from iterand_tf.layers import Subnet, SubnetKernel, built_subnet_layers
from iterand_tf.rerandomization import RerandomizationSchedule


class Rerandomize(keras.callbacks.Callback):
    """Re-draws pruned kernel entries of all Subnet layers of the model on a schedule, in plain `model.fit`.

    After every `period` steps of the optimizer, each pruned entry is re-drawn with probability `rate`. Layers that are
    not trainable keep their kernels.

    An event, the re-randomization after a step, happens once: also when `steps_per_execution` skips over its step (it
    then happens when the execution ends), and also when the model was saved between the step and its event and `fit`
    starts at that very step. It may stand anywhere among other callbacks, but before a `SparsitySchedule`. In a loop of
    your own, call `rerandomize_model` instead.

    At the end of each epoch `logs` gains two entries, which the history has and callbacks listed after this one see:

    - `rerandomized_weights`: kernel entries that got another value in the epoch;
    - `mask_flip_ratio`: the fraction of all mask entries that differ from those at the end of the epoch before; in
      the first epoch from those when training began, or from the first step in a model that was not built before.

    Args:
        period: steps between two re-randomizations, a whole number of at least 0; 0 means never. Or a
            `RerandomizationSchedule`, without `rate`: it has period and rate that change in training, other modes than
            the paper's, and an end.
        rate: probability in [0, 1] that a pruned entry is re-drawn; 0 means never, None 0.1, the paper's.

    Raises:
        ValueError: if `period` or `rate` is out of its range, or, when training begins, if the model has no Subnet
            layer or two of them would draw the same values.

    Reference:
        Chijiwa et al., NeurIPS 2021, algorithm 1.

    Example:

    >>> import iterand_tf, keras, numpy as np
    >>> from iterand_tf import Rerandomize
    >>> model = keras.Sequential([iterand_tf.SubnetDense(1, weight_distribution="uniform", seed=0)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=1, verbose=0,
    ...                     callbacks=[Rerandomize(period=4, rate=1.0)])

    There were two events, and two of four entries are pruned:

    >>> history.history["rerandomized_weights"]
    [4]
    """

    def __init__(self, period: int | RerandomizationSchedule = 300, rate: float | None = None):
        super().__init__()
        if isinstance(period, RerandomizationSchedule):
            if rate is not None:
                raise ValueError(f"give either a schedule or period and rate. Received: {period=}, {rate=}")
            self.schedule = period
        else:
            self.schedule = RerandomizationSchedule(period, 0.1 if rate is None else rate)
        self._layers: list[Subnet] = []
        # On the device: the host asks how many entries differ, and for the masks only to save them.
        self._masks: list[Any] = []
        self._redrawn = 0
        self._step = self._epoch_step = 0
        self._begins = False

    def on_train_begin(self, logs=None):
        # Other callbacks may restore the model now, whatever their place in the list, so nothing is read yet.
        self._begins = True
        self._layers = []

    def on_epoch_begin(self, epoch, logs=None):
        self._redrawn = 0
        self._step = self._epoch_step = current_step(self.model)
        if self._begins:
            self._begins = False
            if any(built_subnet_layers(self.model)):
                self._find_layers()
                self._redrawn = _complete_events(
                    self._layers, self.schedule, self._step, self.model.steps_per_execution
                )

    def on_train_batch_end(self, batch, logs=None):
        if not self._layers:
            self._find_layers()
        previous, self._step = self._step, step_after_batch(self.model, self._epoch_step, batch)
        self._redrawn += rerandomize_model(self.model, self.schedule, self._step, previous)

    def on_epoch_end(self, epoch, logs=None):
        masks = self._current_masks()
        if logs is not None:
            logs["rerandomized_weights"] = self._redrawn
            logs["mask_flip_ratio"] = flip_ratio(self._masks, masks)
        self._masks = masks

    def get_state(self) -> dict[str, np.ndarray]:
        """What the logs of an epoch are computed from, to save in its midst; the draws need no state."""
        masks = {f"mask/{number:05}": np.packbits(np.asarray(mask)) for number, mask in enumerate(self._masks)}
        return masks | {"rerandomized_weights": np.asarray(self._redrawn)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continues an epoch whose state was saved; call it after training and the epoch have begun.

        Args:
            state: from `get_state`; other entries are ignored.
        """
        self._redrawn += int(state["rerandomized_weights"])
        self._masks = [
            np.unpackbits(state[f"mask/{number:05}"], count=math.prod(mask.shape)).astype(bool).reshape(mask.shape)
            for number, mask in enumerate(self._masks)
        ]

    def _find_layers(self):
        """Finds the layers and their masks; a model that fit itself builds has them after the first step only."""
        attach_state(self.model)
        self._layers = _layers_to_rerandomize(self.model)
        self._masks = self._current_masks()

    def _current_masks(self):
        return [ops.cast(kernel.mask, "bool") for kernel in _kernels(self._layers)]


def rerandomize_model(
    model: keras.Model, schedule: RerandomizationSchedule, step: int, previous: int | None = None
) -> int:
    """Re-draws pruned entries where the schedule has an event after a step: for training loops of your own.

    Call it after each step. `Rerandomize` does the same in `model.fit`.

    Args:
        model: a built model with Subnet layers. Layers that are not trainable keep their kernels.
        schedule: `RerandomizationSchedule(period, rate)`: after every `period` steps each pruned entry is re-drawn with
            probability `rate`.
        step: steps that the optimizer has done, `optimizer.iterations`.
        previous: steps at the call before, where several steps were done since; all events in between happen. None
            for `step - 1`.

    Returns:
        How many kernel entries have another value than before.

    Raises:
        ValueError: if the model has no Subnet layer that has been built, or two of them would draw the same values.

    Reference:
        Chijiwa et al., NeurIPS 2021, algorithm 1.

    Example:

    >>> import iterand_tf, keras, tensorflow as tf
    >>> from iterand_tf import RerandomizationSchedule, rerandomize_model
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(1, weight_distribution="uniform", seed=0)])
    >>> optimizer = keras.optimizers.SGD(0.1)
    >>> schedule = RerandomizationSchedule(period=2, rate=1.0)
    >>> for _ in range(4):
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean(tf.square(model(tf.ones((8, 4)))))
    ...     optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
    ...     print(rerandomize_model(model, schedule, int(optimizer.iterations)))
    0
    2
    0
    2
    """
    events = schedule.steps_between(step - 1 if previous is None else previous, step)
    if not events:
        return 0
    attach_state(model)
    return _run_events(_layers_to_rerandomize(model), events, schedule)


def _run_events(layers, events, schedule):
    return sum(
        layer.rerandomize(event, schedule.rate_at(event), schedule.replacement)
        for event, layer in itertools.product(events, layers)
    )


def _complete_events(layers, schedule, step, steps_per_execution):
    """Does what is due in the execution that ended at the step at which `fit` starts, and what was not done before."""
    if step == 0:
        # A new optimizer counts from 0 again; events of an earlier one are none of its own.
        for kernel in _kernels(layers):
            kernel.rerandomized_at.assign(0)
    changed = 0
    for layer in layers:
        done = max((int(np.asarray(kernel.rerandomized_at)) for kernel in layer.subnet_kernels), default=step)
        events = schedule.steps_between(max(done, step - steps_per_execution), step)
        changed += _run_events([layer], events, schedule)
    return changed


def _kernels(layers: list[Subnet]) -> list[SubnetKernel]:
    return [kernel for layer in layers for kernel in layer.subnet_kernels]


def _layers_to_rerandomize(model: keras.Model) -> list[Subnet]:
    """The built Subnet layers; those that no call has used are left out."""
    layers = [layer for layer in built_subnet_layers(model) if layer.method == "iterand"]
    if not layers:
        raise ValueError(
            "Rerandomize needs a model with Subnet layers that are built and have the method iterand. "
            f"Received: model={model.name}"
        )
    check_draws_differ(layers)
    return layers


def check_draws_differ(layers: list[Subnet]) -> None:
    """Raises ValueError if two layers, as those of equal names in two nested models, would draw the same values."""
    seen: dict[Any, Subnet] = {}
    for layer in layers:
        if (layer.seed, layer.name) in seen:
            raise ValueError(
                "two Subnet layers of one model have the same name and seed, so their random kernels are the same; "
                f"give one another name or seed. Received: name={layer.name!r}, seed={layer.seed}"
            )
        seen[layer.seed, layer.name] = layer


def current_step(model: keras.Model) -> int:
    """Steps that the model's optimizer has done, under a distribution strategy too."""
    attach_state(model)
    return int(ops.convert_to_numpy(model.optimizer.iterations))


def step_after_batch(model: keras.Model, epoch_step: int, batch: int) -> int:
    """Steps that the optimizer has done when a batch of `model.fit` ends.

    Args:
        model: that is fit.
        epoch_step: `current_step` when the epoch began.
        batch: its number in the epoch, as callbacks get it.
    """
    if keras.backend.backend() == "jax":
        # To read the optimizer there would take all variables out of the compiled loop, in each step.
        return epoch_step + batch + 1
    return current_step(model)


def attach_state(model: keras.Model) -> None:
    """Lets a callback read and assign the model's variables between steps, which JAX's loop keeps to itself."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def flip_ratio(before: list[Any], after: list[Any]) -> float:
    """Fraction of all mask entries that differ between two lists of masks of equal shapes.

    Example:

    >>> flip_ratio([np.array([1, 0, 1, 0])], [np.array([1, 0, 0, 1])])
    0.5
    """
    flips = sum(int(ops.count_nonzero(ops.not_equal(old, new))) for old, new in zip(before, after, strict=True))
    return flips / sum(math.prod(mask.shape) for mask in after)
