"""The last state of a run, at epoch boundaries: model, optimizer, epoch, best validation accuracy."""

import pathlib

import keras
import tensorflow as tf

_KEPT = 2


class TrainingState:
    """Saves and restores everything that training continues from.

    Args:
        model: a built and compiled model.
        directory: of the checkpoints; created when the first is saved.
    """

    def __init__(self, model: keras.Model, directory: pathlib.Path):
        model.optimizer.build(model.trainable_variables)
        self.epoch = tf.Variable(0, dtype=tf.int64)  # epochs done
        self.best_accuracy = tf.Variable(-1.0, dtype=tf.float64)
        self.seconds = tf.Variable(0.0, dtype=tf.float64)  # spent in training
        checkpoint = tf.train.Checkpoint(
            model=_raw(model.variables),
            optimizer=_raw(model.optimizer.variables),
            epoch=self.epoch,
            best_accuracy=self.best_accuracy,
            seconds=self.seconds,
        )
        self._manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=_KEPT)

    def save(self) -> None:
        self._manager.save(checkpoint_number=int(self.epoch))

    def restore(self) -> bool:
        """Restores the newest checkpoint; False if there is none."""
        return self._manager.restore_or_initialize() is not None


def restore_model(model: keras.Model, directory: pathlib.Path) -> bool:
    """Restores the network alone from the newest checkpoint; False if there is none."""
    newest = tf.train.latest_checkpoint(str(directory))
    if newest is None:
        return False
    tf.train.Checkpoint(model=_raw(model.variables)).restore(newest).assert_existing_objects_matched().expect_partial()
    return True


def _raw(variables):
    """TensorFlow's own variables: tracked through Keras objects, a model would bring its optimizer along."""
    return [variable.value for variable in variables]
