"""Training and evaluation of one configuration."""

import contextlib
import dataclasses
import math
import pathlib
import zlib
from typing import Any

import tensorflow as tf

from iterand_tf import data
from iterand_tf.data.tensorflow_errors import reason
from iterand_tf.errors import DataError, LostWorkerError, UserError
from iterand_tf.strategies.strategy import is_chief, make_strategy, num_replicas, num_workers, workers_differ
from iterand_tf.training.config import Config
from iterand_tf.training.dataset import check_dataset, load_data, load_test_data
from iterand_tf.training.environment import check_devices, environment
from iterand_tf.training.flags_file import binding_flags
from iterand_tf.training.loop import TrainingLoop
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.network import build_model, compile_model
from iterand_tf.training.schedules import check_steps
from iterand_tf.training.trained_network import accuracy, load_model


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training leaves.

    Args:
        model_dir: the run's directory.
        metrics: the contents of result.json.
    """

    model_dir: ModelDir
    metrics: dict[str, Any]


def train(config: Config) -> TrainResult:
    """Trains, evaluates and writes the run's directory; continues a run with `config.run.resume`.

    Raises:
        UserError: DataError, ModelDirError or one about the configuration; nothing has been written then.
    """
    strategy = make_strategy(config.run.strategy, config.run.virtual_devices)
    check_devices(config, strategy)
    if workers_differ(strategy, zlib.crc32("\n".join(sorted(binding_flags(config))).encode())):
        raise UserError("the workers were started with different flags; start all with the same.")
    chief = is_chief(strategy)
    model_dir = ModelDir.for_run(config) if chief else ModelDir(pathlib.Path(config.run.model_dir).expanduser())
    with environment(config):
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


def evaluate(config: Config, model_dir: ModelDir) -> dict[str, Any]:
    """Test accuracy of a run's last network and of its best network, as `train` computes them.

    Raises:
        UserError: if the data or the run's files are missing.
    """
    with environment(config):
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
