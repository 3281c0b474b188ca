"""The network that a run has trained: read from its files, tested and counted."""

import math

import keras

from iterand_tf import data
from iterand_tf.errors import ModelDirError
from iterand_tf.training.checkpoints import Checkpoints
from iterand_tf.training.config import Config
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.network import loss_and_metrics
from iterand_tf.training.state import restore_model


def load_model(model_dir: ModelDir, which: str) -> keras.Model:
    """The network of a run, not compiled: `"best"` by validation accuracy, or `"last"`.

    Raises:
        ModelDirError: if the run has not saved one yet.
    """
    missing = ModelDirError(f"--model_dir={model_dir.path} holds no trained network yet; continue it with --resume.")
    if not model_dir.best_model.exists():
        raise missing
    with model_dir.being_read(model_dir.best_model):
        model = keras.models.load_model(model_dir.best_model, compile=False)
    if which == "last" and not restore_model(model, Checkpoints(model_dir.checkpoints)):
        raise missing
    return model


def num_kernel_entries(model: keras.Model) -> int:
    """Number of kernel entries of a dense model, biases and BatchNormalization left out."""
    return sum(math.prod(variable.shape) for variable in model.variables if variable.name == "kernel")


def accuracy(model: keras.Model, examples: data.Examples, config: Config) -> float:
    """The fraction of examples that the network classifies rightly."""
    if not model.compiled:
        model.compile(**loss_and_metrics())
    batches = examples.evaluation_batches(config.data.batch_size)
    return float(model.evaluate(batches, verbose=0, return_dict=True)["accuracy"])
