"""The network that a run has trained: read from its files, counted and tested."""

import math
import statistics
from typing import Any

import keras

from iterand_tf import data
from iterand_tf.errors import ModelDirError
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.training.checkpoints import Checkpoints
from iterand_tf.training.config import Config
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.network import loss_and_metrics
from iterand_tf.training.state import TrainingState, restore_model


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


def result_of(
    last: keras.Model,
    config: Config,
    splits: data.Splits,
    model_dir: ModelDir,
    state: TrainingState,
    rows: list[dict[str, str]],
) -> dict[str, Any]:
    """The contents of result.json, computed on one device.

    Args:
        last: the network after the last step.
        config: of the run.
        splits: its dataset.
        model_dir: its directory.
        state: at its end.
        rows: of metrics.csv.
    """
    # Before the first epoch the last network is the best.
    best = load_model(model_dir, "best") if rows else last
    # The first epoch also compiles.
    speeds = [float(row["images_per_second"]) for row in rows[1:] or rows]
    total = sparsity_report(best).total
    num_weights = total.num_weights or num_kernel_entries(best)
    last_accuracy = rows and rows[-1].get("val_accuracy")
    test_accuracy = accuracy(last, splits.test, config)
    return {
        "test_accuracy": test_accuracy,
        "best_test_accuracy": accuracy(best, splits.test, config) if rows else test_accuracy,
        "validation_accuracy": float(last_accuracy) if last_accuracy else None,
        "best_validation_accuracy": state.best_accuracy if last_accuracy else None,
        "epochs": state.epoch,
        "steps": state.step,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "sparsity": total.sparsity,
        "num_weights": num_weights,
        "num_kept": total.num_kept if total.num_weights else num_weights,
        "seconds": state.seconds,
    }


def num_kernel_entries(model: keras.Model) -> int:
    """Number of kernel entries of a dense model, biases and BatchNormalization left out."""
    return sum(math.prod(variable.shape) for variable in model.variables if variable.name == "kernel")


def accuracy(model: keras.Model, examples: data.Examples, config: Config) -> float:
    """The fraction of examples that the network classifies rightly."""
    if not model.compiled:
        model.compile(**loss_and_metrics())
    batches = examples.evaluation_batches(config.data.batch_size)
    return float(model.evaluate(batches, verbose=0, return_dict=True)["accuracy"])
