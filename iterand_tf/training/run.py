"""Training and evaluation of one configuration."""

import contextlib
import dataclasses
import math
import pathlib
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data
from iterand_tf.data.tensorflow_errors import reason
from iterand_tf.errors import DataError, LostWorkerError, UserError
from iterand_tf.strategies.strategy import is_chief, make_strategy, num_replicas, num_workers, workers_differ
from iterand_tf.training.config import Config
from iterand_tf.training.dataset import check_dataset, load_data, load_test_data
from iterand_tf.training.flags_file import binding_flags
from iterand_tf.training.loop import TrainingLoop
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.network import accuracy, build_model, compile_model, load_model
from iterand_tf.training.schedules import check_steps


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training leaves: its directory, and the contents of result.json."""

    model_dir: ModelDir
    metrics: dict[str, Any]


def train(config: Config) -> TrainResult:
    """Trains, evaluates and writes the run's directory; continues a run with `config.run.resume`.

    What can be refused is refused before anything is written.
    """
    strategy = make_strategy(config.run.strategy, config.run.virtual_devices)
    _check_devices(config, strategy)
    if workers_differ(strategy, zlib.crc32("\n".join(sorted(binding_flags(config))).encode())):
        raise UserError("the workers were started with different flags; start all with the same.")
    chief = is_chief(strategy)
    model_dir = ModelDir.for_run(config) if chief else ModelDir(pathlib.Path(config.run.model_dir).expanduser())
    with _environment(config):
        splits = load_data(config)
        if config.run.resume:
            check_dataset(config, model_dir.read_dataset(), splits)
        # Refuse before anything is written.
        if splits.validation:
            shard = data.Shard(num_replicas(strategy))
            shard.evaluation_batch_size(splits.validation.num_examples, config.data.batch_size)
        steps_per_epoch = math.ceil(splits.train.num_examples / config.data.batch_size)
        check_steps(config, steps_per_epoch)
        with _explained(strategy):
            with strategy.scope() if strategy else contextlib.nullcontext():
                model = build_model(config, splits)
                compile_model(model, config, steps_per_epoch, strategy)
            with model_dir.created(config) if chief else contextlib.nullcontext():
                loop = TrainingLoop(config, splits, strategy, model_dir, model, steps_per_epoch, chief)
                return TrainResult(model_dir, loop.run())


def evaluate(config: Config, model_dir: ModelDir) -> dict[str, Any]:
    """Test accuracy of a run's last network and of its best network, as `train` computes them."""
    with _environment(config):
        test = load_test_data(config, model_dir.read_dataset()).test
        last, best = (load_model(model_dir, which) for which in ("last", "best"))
        if test.image_shape != best.input_shape[1:]:
            raise DataError(
                f"the test images have the shape {test.image_shape}, the network takes {best.input_shape[1:]}; restore "
                "the images that the run was trained on."
            )
        with data.reading(config.data.dataset):
            return {
                "test_accuracy": accuracy(last, test, config),
                "best_test_accuracy": accuracy(best, test, config),
                "num_test_examples": test.num_examples,
            }


def _check_devices(config: Config, strategy: tf.distribute.Strategy | None) -> None:
    """Refuses what Keras 3.15 cannot do on several devices."""
    if strategy is None:
        return
    replicas = strategy.num_replicas_in_sync
    if config.data.batch_size < replicas:
        raise UserError(f"--batch_size={config.data.batch_size} must be at least the number of devices, {replicas}.")
    if config.training.jit_compile == "true":
        raise UserError("--jit_compile=true hangs on several devices; leave it out.")
    if config.training.steps_per_execution > 1:
        raise UserError("--steps_per_execution above 1 fails on several devices in Keras 3.15; leave it out.")
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and not config.run.model_dir:
        raise UserError("--strategy=multi_worker needs --model_dir, a directory that all workers see.")


@contextlib.contextmanager
def _environment(config: Config) -> Iterator[None]:
    """Seeds and precision of the run; the global precision is put back afterwards."""
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(config.training.seed)
    if config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.training.precision)
    try:
        with warnings.catch_warnings():
            # Keras says so whenever a dataset does not tell its length.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _explained(strategy):
    """Says what errors of TensorFlow mean to the user, those of reading data apart."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"the memory does not suffice ({reason(error)}); lower --batch_size, --image_size or --width_factor."
        ) from error
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if num_workers(strategy) == 1:
            raise
        raise LostWorkerError(f"a worker was lost ({reason(error)}); start all of them again with --resume.") from error
