"""Keras callbacks of the method: re-randomization between training steps."""

import keras
import numpy as np

from iterand_tf.layers import SubnetLayer, subnet_layers
from iterand_tf.rerandomization import RerandomizationSchedule


class Rerandomize(keras.callbacks.Callback):
    """Re-draws pruned kernel entries of all Subnet layers of the model on a schedule, in plain `model.fit`.

    After step k (`optimizer.iterations`) with k a multiple of the period, each pruned entry is re-drawn with
    probability `rate` (Chijiwa et al., NeurIPS 2021, algorithm 1). Each such step has its event once, also when
    `steps_per_execution` skips over it: the event then happens when the execution ends. A draw is a function of (seed,
    layer, step), so an event that is due at the very step at which `fit` starts is simply done again: it completes a
    run that was saved between the step and its event, and changes nothing otherwise.

    At each epoch's end `logs` gains `rerandomized_weights`, the number of entries re-drawn in the epoch, and
    `mask_flip_ratio`, the fraction of all mask entries that differ from the end of the epoch before (in the first epoch
    from when training began, or from the first step in a model that was not built before). Callbacks listed
    after this one, such as TensorBoard and CSVLogger, and the history see both.

    Args:
        period: steps between two re-randomizations, a whole number of at least 0; 0 means never. Or a
            `RerandomizationSchedule`, without `rate`.
        rate: probability in [0, 1] that a pruned entry is re-drawn; 0 means never.

    Raises:
        ValueError: if `period` or `rate` is out of range, or, when training begins, if the model has no Subnet layer.

    Example:

    >>> import iterand_tf
    >>> model = keras.Sequential([iterand_tf.SubnetDense(1, seed=0)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=1, verbose=0,
    ...                     callbacks=[Rerandomize(period=4, rate=1.0)])
    >>> history.history["rerandomized_weights"]  # two events, two of four entries pruned
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
        self._layers: list[SubnetLayer] = []
        self._masks: list[np.ndarray] = []
        self._redrawn = 0
        self._step = 0

    def on_train_begin(self, logs=None):
        self._redrawn = 0
        self._layers = []
        self._step = current_step(self.model)
        if self.model.built:
            self._begin()
            self._run_events(self._step - 1)

    def on_epoch_begin(self, epoch, logs=None):
        self._redrawn = 0

    def on_train_batch_end(self, batch, logs=None):
        if not self._layers:
            self._begin()
        previous, self._step = self._step, current_step(self.model)
        self._run_events(previous)

    def on_epoch_end(self, epoch, logs=None):
        masks = self._current_masks()
        if logs is not None:
            logs["rerandomized_weights"] = self._redrawn
            logs["mask_flip_ratio"] = flip_ratio(self._masks, masks)
        self._masks = masks

    def get_state(self) -> dict[str, np.ndarray]:
        """What the logs of an epoch are computed from, to save in its midst; the draws need no state."""
        masks = {f"mask/{number:05}": np.packbits(mask) for number, mask in enumerate(self._masks)}
        return masks | {"rerandomized_weights": np.asarray(self._redrawn)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continues an epoch whose state was saved; call it after training and the epoch have begun.

        Args:
            state: from `get_state`; other entries are ignored.
        """
        self._redrawn = int(state["rerandomized_weights"])
        self._masks = [
            np.unpackbits(state[f"mask/{number:05}"], count=mask.size).astype(bool).reshape(mask.shape)
            for number, mask in enumerate(self._masks)
        ]

    def _begin(self):
        """Finds the layers and their masks; a model that fit itself builds has them after the first step only."""
        self._layers = list(subnet_layers(self.model))
        if not self._layers:
            raise ValueError(f"Rerandomize needs a model with Subnet layers. Received: model={self.model.name}")
        self._masks = self._current_masks()

    def _run_events(self, previous):
        for step in self.schedule.steps_between(previous, self._step):
            self._redrawn += sum(layer.rerandomize(step, self.schedule.rate) for layer in self._layers)

    def _current_masks(self):
        return [np.asarray(layer.kernel_mask, dtype=bool) for layer in self._layers]


def current_step(model: keras.Model) -> int:
    """Steps that the model's optimizer has done, under a distribution strategy too."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def flip_ratio(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """Fraction of all mask entries that differ between two lists of masks of equal shapes.

    Example:

    >>> flip_ratio([np.array([1, 0, 1, 0])], [np.array([1, 0, 0, 1])])
    0.5
    """
    flips = sum(int(np.count_nonzero(old != new)) for old, new in zip(before, after, strict=True))
    return flips / sum(mask.size for mask in after)
