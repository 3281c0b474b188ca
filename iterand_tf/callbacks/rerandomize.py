"""Rerandomize, the callback that re-draws pruned kernel entries between training steps."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from iterand_tf.callbacks.epoch_masks import EpochMasks
from iterand_tf.callbacks.optimizer_steps import OptimizerSteps, attach_state, current_step
from iterand_tf.layers import Subnet, built_subnet_layers
from iterand_tf.rerandomization import Replacement, RerandomizationSchedule


class Rerandomize(keras.callbacks.Callback):
    """Re-draws pruned kernel entries of all Subnet layers of a model on a schedule, in plain `model.fit`.

    After every `period` steps of the optimizer, each pruned entry is re-drawn with probability `rate`. Layers that are
    not trainable keep their kernels.

    An event, the re-randomization after a step, happens once: also when `steps_per_execution` skips over its step (it
    then happens when the execution ends), and also when the model was saved between the step and its event and `fit`
    starts at that very step. The callback may stand anywhere in the list, but before a `SparsityScheduler`. In a loop
    of your own, call `rerandomize_model`.

    At the end of each epoch `logs` gains two entries, which the history has and callbacks listed after this one see:

    - `rerandomized_weights`: kernel entries that got another value in the epoch;
    - `mask_flip_ratio`: the fraction of all mask entries that differ from those at the end of the epoch before; in
      the first epoch from those when training began, or from the first step in a model that was not built before.

    Args:
        period: steps between two re-randomizations (K_per in the paper), a whole number of at least 0; 0 means never.
            Or a function that gives for the step of an event, and 0 at first, the steps until the next one.
        rate: probability in [0, 1] that a pruned entry is re-drawn; 0 means never, which is edge-popup. Or a function
            of the step, such as `keras.optimizers.schedules.CosineDecay(0.1, decay_steps=3000)`.
        mode: what re-drawn entries become: `"draw"` their new draw, as in the paper, `"blend"` a mean of old and new
            value, or `"recycle"` values of kept entries. Or a function of (kernel, mask, fresh_kernel, seed), such as
            `iterand_tf.rerandomization.Blended(old=0.9, new=0.1)`.
        last_step: no re-randomization happens after this step; None for no end.

    Raises:
        ValueError: if an argument is out of its range, or, when training begins, if the model has no Subnet layer with
            a frozen kernel or two of them would draw the same values.

    Reference:
        Chijiwa et al., NeurIPS 2021, algorithm 1.

    Example:

    >>> import iterand_tf, keras, numpy as np
    >>> from iterand_tf import Rerandomize, Supermask
    >>> method = Supermask(weight_distribution="uniform")
    >>> model = keras.Sequential([iterand_tf.SubnetDense(1, method=method, seed=0)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=1, verbose=0,
    ...                     callbacks=[Rerandomize(period=4, rate=1.0)])

    There were two events, and two of four entries are pruned:

    >>> history.history["rerandomized_weights"]
    [4]
    """

    def __init__(
        self,
        period: int | Callable[[int], int] = 300,
        rate: float | Callable[[int], Any] = 0.1,
        *,
        mode: str | Replacement = "draw",
        last_step: int | None = None,
    ):
        super().__init__()
        self._schedule = RerandomizationSchedule(period, rate, mode, last_step)
        self._masks: EpochMasks | None = None
        self._redrawn = 0
        self._step = 0
        self._begins = False

    def on_train_begin(self, logs=None):
        # Other callbacks may restore the model now, whatever their place in the list, so nothing is read yet.
        self._begins, self._masks = True, None

    def on_epoch_begin(self, epoch, logs=None):
        self._redrawn = 0
        self._steps = OptimizerSteps(self.model)
        self._step = self._steps.at_begin
        if self._begins:
            self._begins = False
            if built_subnet_layers(self.model):
                self._begin_masks()
                self._redrawn = self._complete_events()

    def on_train_batch_end(self, batch, logs=None):
        if self._masks is None:
            self._begin_masks()
        previous, self._step = self._step, self._steps.after(batch)
        events = self._schedule.steps_between(previous, self._step)
        if events:
            attach_state(self.model)
            self._redrawn += sum(self._run(layer, events) for layer in layers_to_rerandomize(self.model))

    def on_epoch_end(self, epoch, logs=None):
        masks = EpochMasks(self.model)
        if logs is not None:
            logs["rerandomized_weights"] = self._redrawn
            logs["mask_flip_ratio"] = self._masks.flip_ratio(masks) if self._masks else 0.0
        self._masks = masks

    def get_state(self) -> dict[str, np.ndarray]:
        """What the logs of an epoch are computed from, to save in its midst; the draws need no state."""
        masks = self._masks.get_state() if self._masks else {}
        return masks | {"rerandomized_weights": np.asarray(self._redrawn)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continues an epoch whose state was saved; call it after training and the epoch have begun.

        Args:
            state: from `get_state`; other entries are ignored.
        """
        self._redrawn += int(state["rerandomized_weights"])
        if self._masks is not None:
            self._masks.set_state(state)

    def _begin_masks(self):
        """Looks for what is re-drawn; a model that fit itself builds has it after the first step only."""
        attach_state(self.model)
        layers_to_rerandomize(self.model)
        self._masks = EpochMasks(self.model)

    def _run(self, layer, events):
        schedule = self._schedule
        return sum(layer.rerandomize(event, schedule.rate_at(event), schedule.replacement) for event in events)

    def _complete_events(self):
        """Runs the events that were due when the model was saved, in the execution that had just ended."""
        layers, changed = layers_to_rerandomize(self.model), 0
        for layer in layers:
            if self._step == 0:
                # A new optimizer counts from 0 again; events of an earlier one are none of its own.
                for kernel in layer.subnet_kernels:
                    kernel.rerandomized_at.assign(0)
            done = max(int(ops.convert_to_numpy(kernel.rerandomized_at)) for kernel in layer.subnet_kernels)
            begin = max(done, self._step - self.model.steps_per_execution)
            changed += self._run(layer, self._schedule.steps_between(begin, self._step))
        return changed


def rerandomize_model(model: keras.Model, rate: float = 0.1, *, mode: str | Replacement = "draw") -> int:
    """Re-draws each pruned kernel entry of a model with probability `rate`, for training loops of your own.

    Call it between steps, where IteRand re-draws: `if step % 300 == 0: rerandomize_model(model, rate=0.1)`. In
    `model.fit` the callback `Rerandomize` does it.

    Args:
        model: a built model with Subnet layers. Layers that are not trainable keep their kernels.
        rate: probability in [0, 1].
        mode: as in `Rerandomize`.

    Returns:
        How many kernel entries have another value than before.

    Raises:
        ValueError: if the model has no built Subnet layer with a frozen kernel, two of them would draw the same values,
            or an argument is out of its range.

    Reference:
        Chijiwa et al., NeurIPS 2021, algorithm 1.

    Example:

    >>> import iterand_tf, keras
    >>> from iterand_tf import Supermask, rerandomize_model
    >>> layer = iterand_tf.SubnetDense(1, method=Supermask(weight_distribution="uniform"), seed=0)
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> for step in range(1, 5):
    ...     # A step of the optimizer stands here.
    ...     if step % 2 == 0:
    ...         print(rerandomize_model(model, rate=1.0))
    2
    2
    """
    schedule = RerandomizationSchedule(1, rate, mode)
    if not rate:
        return 0
    # Where training goes on with `Rerandomize`, what has happened until this step is not done again.
    step = current_step(model) if getattr(model, "optimizer", None) is not None else 0
    return sum(
        layer.rerandomize(step, schedule.rate_at(step), schedule.replacement) for layer in layers_to_rerandomize(model)
    )


def layers_to_rerandomize(model: keras.Model) -> list[Subnet]:
    """The built Subnet layers with frozen kernels; those that no call has used are left out.

    Raises:
        ValueError: if there is none, or two of them, such as those of equal names in two nested models, would draw the
            same values.
    """
    built = built_subnet_layers(model)
    layers = [layer for layer in built if any(kernel.is_frozen for kernel in layer.subnet_kernels)]
    if not layers:
        raise ValueError(
            "re-randomization needs a model with built Subnet layers whose kernels are frozen, as the method supermask "
            f"makes them. Received: model={model.name}"
        )
    seen = set()
    for layer in layers:
        if (layer.seed, layer.name) in seen:
            raise ValueError(
                "two Subnet layers of one model have the same name and seed, so their random kernels are the same; "
                f"give one another name or seed. Received: name={layer.name!r}, seed={layer.seed}"
            )
        seen.add((layer.seed, layer.name))
    return layers
