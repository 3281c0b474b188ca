"""The process of a run: its devices, seeds and precision."""

import contextlib
import warnings
from collections.abc import Iterator

import keras
import tensorflow as tf

from iterand_tf.errors import UserError
from iterand_tf.training.config import Config


def check_devices(config: Config, strategy: tf.distribute.Strategy | None) -> None:
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
def environment(config: Config) -> Iterator[None]:
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
