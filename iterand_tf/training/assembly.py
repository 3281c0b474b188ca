"""Makes what a configuration names: data, network, optimizer, callbacks of the method, and the process's settings."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data, models, optimization
from iterand_tf.callbacks import Rerandomize
from iterand_tf.checks import ArgumentError
from iterand_tf.errors import DataError, UserError
from iterand_tf.layers.subnet_options import OPTION_NAMES
from iterand_tf.strategies import enable_distributed_fit
from iterand_tf.training.config import Config, flag_error
from iterand_tf.training.dataset_record import DatasetRecord


def load_data(config: Config) -> data.Splits:
    """The dataset of a run, with its seeded validation split."""
    return data.load(
        config.data.dataset,
        config.data.data_dir,
        config.data.validation_split,
        config.data.max_train_examples,
        config.data.image_size,
        config.training.seed,
        config.data.test_split,
    )


def load_test_data(config: Config, record: DatasetRecord | None) -> data.EvaluationSplit:
    """What a run's network is tested on, and nothing else of the dataset.

    Args:
        config: of the run.
        record: of the dataset that the run was trained on; None where the run kept none.

    Raises:
        DataError: if the test part is missing, broken or not what it was.
    """
    options = config.data
    if record is None:
        return load_data(config)
    split = data.load_test(options.dataset, options.data_dir, record.image_size, options.test_split, record.class_names)
    check_dataset(config, record, split)
    return split


def check_dataset(config: Config, record: DatasetRecord | None, split: data.EvaluationSplit) -> None:
    """Raises DataError if the dataset is not what a run was trained on."""
    if record is not None and (difference := record.difference(split)):
        raise DataError(
            f"--dataset={config.data.dataset} has changed since the run was trained: {difference}; restore it, or "
            "train anew in another --model_dir."
        )


def build_model(config: Config, splits: data.Splits) -> keras.Model:
    """The run's network before training: stock layers for the method dense, else Subnet layers."""
    method, synchronized = config.method, config.model.synchronized_batch_normalization
    layers: models.LayerFactory
    if method.method == "dense":
        layers = models.StockFactory(
            method.weight_distribution, method.weight_scale, config.training.seed, synchronized
        )
    else:
        layers = models.SubnetFactory(
            **{name: getattr(method, name) for name in OPTION_NAMES},
            head_sparsity=method.head_sparsity,
            seed=config.training.seed,
            synchronized_batch_normalization=synchronized,
        )
    smallest = models.smallest_image(config.model.model)
    if min(splits.train.image_shape[:2]) < smallest:
        raise UserError(
            f"--model={config.model.model} does not fit --dataset={config.data.dataset}: {config.model.model} needs "
            f"images of at least {smallest} pixels; choose a network with fewer stages, or give --image_size."
        )
    try:
        return models.build(
            config.model.model,
            splits.train.image_shape,
            splits.train.num_classes,
            layers,
            config.model.width_factor,
            batch_normalization=config.model.batch_normalization,
        )
    except ArgumentError as error:
        raise flag_error(error) from error


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


def check_steps(config: Config, steps_per_epoch: int) -> None:
    """Refuses executions that would run on into the next epoch."""
    steps = config.training.steps_per_execution
    if steps_per_epoch % steps:
        divisors = [count for count in range(1, steps_per_epoch + 1) if steps_per_epoch % count == 0]
        raise UserError(
            f"--steps_per_execution={steps} must divide the {steps_per_epoch} steps of an epoch: one of "
            f"{', '.join(map(str, divisors))}."
        )


def compile_model(
    model: keras.Model, config: Config, steps_per_epoch: int, strategy: tf.distribute.Strategy | None
) -> None:
    """Gives the model its optimizer, loss and metrics; call it in the strategy's scope."""
    options = config.training
    schedule = optimization.learning_rate_schedule(
        options.lr_schedule,
        options.learning_rate,
        steps_per_epoch,
        options.epochs,
        options.warmup_epochs,
        options.finetune_epochs,
    )
    model.compile(
        optimization.optimizer(options.optimizer, schedule, options.momentum, options.weight_decay),
        jit_compile={"auto": "auto", "true": True, "false": False}[options.jit_compile],
        steps_per_execution=options.steps_per_execution,
        **loss_and_metrics(),
    )
    model.optimizer.build(model.trainable_variables)
    if strategy is not None:
        enable_distributed_fit(model)


def loss_and_metrics() -> dict[str, Any]:
    """Arguments of `compile`."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    # With replicas the reported loss would be a mean of weighted means; a metric of its name is the mean over examples.
    return {"loss": loss, "metrics": ["accuracy", keras.metrics.CategoricalCrossentropy(from_logits=True, name="loss")]}


def method_callbacks(config: Config) -> list[Rerandomize]:
    """What the method does between training steps."""
    if config.method.method != "iterand":
        return []
    return [Rerandomize(config.method.rerandomization_period, config.method.rerandomization_rate)]


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
