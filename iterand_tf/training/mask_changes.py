"""How the masks change from epoch to epoch, layer by layer, for TensorBoard."""

import math
import pathlib
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from iterand_tf.callbacks import current_step, flip_ratio
from iterand_tf.layers import built_subnet_layers
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.training.epoch_figures import errors_as_oserror


class MaskChanges(keras.callbacks.Callback):
    """Writes each Subnet layer's `mask_flip_ratio` and `sparsity` after each epoch.

    It also adds `mask_flip_ratio`, of all masks together, to `logs`, where `Rerandomize` has not done so. An epoch that
    was interrupted is left out, as its first masks are not known any more.

    Args:
        directory: of the event files.
        steps_per_epoch: of a whole epoch.
    """

    def __init__(self, directory: pathlib.Path, steps_per_epoch: int):
        super().__init__()
        self._directory, self._steps_per_epoch = directory, steps_per_epoch
        self._writer: tf.summary.SummaryWriter | None = None
        # On the device; the host asks how many entries differ.
        self._masks: dict[str, Any] = {}

    def on_epoch_begin(self, epoch, logs=None):
        if not self._masks and current_step(self.model) % self._steps_per_epoch == 0:
            self._masks = self._current_masks()

    def on_epoch_end(self, epoch, logs=None):
        before, self._masks = self._masks, self._current_masks()
        if not self._masks:
            return
        if before and "mask_flip_ratio" not in logs:
            logs["mask_flip_ratio"] = flip_ratio(list(before.values()), list(self._masks.values()))
        with errors_as_oserror():
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._directory))
            with self._writer.as_default(step=epoch):
                for name, mask in self._masks.items():
                    num_kept = int(ops.count_nonzero(mask))
                    tf.summary.scalar(f"sparsity/{name}", 1 - num_kept / math.prod(mask.shape))
                    if before:
                        tf.summary.scalar(f"mask_flip_ratio/{name}", flip_ratio([before[name]], [mask]))
            self._writer.flush()

    def _current_masks(self):
        """By the names that `sparsity_report` gives them."""
        kernels = [kernel for layer in built_subnet_layers(self.model) for kernel in layer.subnet_kernels]
        names = [layer.name for layer in sparsity_report(self.model).layers]
        return {name: ops.cast(kernel.mask, "bool") for name, kernel in zip(names, kernels, strict=True)}
