"""How the masks change from epoch to epoch, layer by layer, for TensorBoard."""

import pathlib

import keras
import tensorflow as tf

from iterand_tf.callbacks import EpochMasks, current_step
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.training.callbacks import errors_as_oserror


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
        self._masks: EpochMasks | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._masks is None and current_step(self.model) % self._steps_per_epoch == 0:
            self._masks = EpochMasks(self.model)

    def on_epoch_end(self, epoch, logs=None):
        report = sparsity_report(self.model)
        if not report.layers:
            return
        before, self._masks = self._masks, EpochMasks(self.model)
        if before and "mask_flip_ratio" not in logs:
            logs["mask_flip_ratio"] = before.flip_ratio(self._masks)
        ratios = before.flip_ratios(self._masks) if before else []
        with errors_as_oserror():
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._directory))
            with self._writer.as_default(step=epoch):
                for layer in report.layers:
                    tf.summary.scalar(f"sparsity/{layer.name}", layer.sparsity)
                for layer, ratio in zip(report.layers, ratios, strict=False):
                    tf.summary.scalar(f"mask_flip_ratio/{layer.name}", ratio)
            self._writer.flush()
