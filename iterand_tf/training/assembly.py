"""Makes what a configuration names: data, network, optimizer, callbacks of the method, and the process's settings."""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data, models, optimization
from iterand_tf.callbacks import Rerandomize, SparsityScheduler
from iterand_tf.checks import ArgumentError
from iterand_tf.cloning import is_graph
from iterand_tf.conversion import to_subnet
from iterand_tf.errors import DataError, UserError, first_line
from iterand_tf.masks import GLOBAL
from iterand_tf.rerandomization import Blended
from iterand_tf.strategies import enable_distributed_fit
from iterand_tf.training.config import PRUNING, Config, flag_error
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
    if config.method.initial_model:
        return _pruned(config, _initial_model(config, splits))
    smallest = models.smallest_image(config.model.model)
    if min(splits.train.image_shape[:2]) < smallest:
        raise UserError(
            f"--model={config.model.model} does not fit --dataset={config.data.dataset}: {config.model.model} needs "
            f"images of at least {smallest} pixels; choose a network with fewer stages, or give --image_size."
        )
    try:
        model = models.build(
            config.model.model,
            splits.train.image_shape,
            splits.train.num_classes,
            _layers(config),
            config.model.width_factor,
            batch_normalization=config.model.batch_normalization,
        )
    except ArgumentError as error:
        raise flag_error(error) from error
    except ValueError as error:
        # A kernel does not fit the mask.
        raise UserError(first_line(error)) from error
    return _pruned(config, model) if config.method.method in PRUNING else model


def _layers(config) -> models.LayerFactory:
    """What the network is built of; the pruning methods begin with stock layers."""
    method, seed, synchronized = config.method, config.training.seed, config.model.synchronized_batch_normalization
    if method.method in PRUNING:
        return models.StockFactory(seed=seed, synchronized_batch_normalization=synchronized)
    if method.method == "dense":
        distribution, scale = config.supermask.weight_distribution, config.supermask.weight_scale
        return models.StockFactory(distribution, scale, seed, synchronized)
    return models.SubnetFactory(
        config.supermask,
        head_sparsity=method.head_sparsity,
        seed=seed,
        synchronized_batch_normalization=synchronized,
        batch_normalization_gains=config.model.batch_normalization_gains,
    )


def _initial_model(config, splits):
    """The network of --initial_model."""
    path = config.method.initial_model
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:
        # Keras reads a damaged file in many ways.
        raise UserError(f"--initial_model={path} holds no Keras model that can be read: {first_line(error)}") from error
    if not is_graph(model):
        raise UserError(f"--initial_model={path} must be a functional or Sequential model.")
    if getattr(model.layers[-1], "activation", None) in (keras.activations.softmax, keras.activations.sigmoid):
        raise UserError(f"--initial_model={path} ends in probabilities; let it end in logits.")
    shapes = (model.input_shape[1:], model.output_shape[1:])
    if shapes != (splits.train.image_shape, (splits.train.num_classes,)):
        raise UserError(
            f"--initial_model={path} takes {shapes[0]} and gives {shapes[1]}; --dataset={config.data.dataset} has "
            f"images of {splits.train.image_shape} and {splits.train.num_classes} classes."
        )
    return model


def _pruned(config, model):
    """A network of stock layers with its kernels under masks, the last one with a sparsity of its own if asked for."""
    head_sparsity = config.method.head_sparsity
    sparsity = None
    if head_sparsity is not None:
        head = [layer.name for layer in model.layers if any("kernel" in variable.name for variable in layer.variables)]
        sparsity = {head[-1]: head_sparsity, "*": config.supermask.sparsity}
    try:
        return to_subnet(model, sparsity, config.mask_method, seed=config.training.seed, verbose=False)
    except ValueError as error:
        raise UserError(first_line(error)) from error


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
    """Refuses executions that would run on into the next epoch, and pruning that would end before it begins."""
    steps = config.training.steps_per_execution
    if steps_per_epoch % steps:
        divisors = [count for count in range(1, steps_per_epoch + 1) if steps_per_epoch % count == 0]
        raise UserError(
            f"--steps_per_execution={steps} must divide the {steps_per_epoch} steps of an epoch: one of "
            f"{', '.join(map(str, divisors))}."
        )
    method, num_steps = config.method, steps_per_epoch * config.training.epochs
    begin, end = method.sparsity_begin_step, sparsity_end_step(config, num_steps)
    if method.sparsity_schedule == "constant" or not num_steps:
        return
    if begin >= end:
        raise UserError(
            f"--sparsity_begin_step={begin} and --sparsity_frequency={method.sparsity_frequency} leave no step to "
            f"prune at in the first three quarters of {num_steps} steps; lower one of them."
        )
    if end > num_steps or (end - begin) % method.sparsity_frequency:
        raise UserError(
            f"--sparsity_end_step={end} must be at most {num_steps}, the steps of the run, and a multiple of "
            f"--sparsity_frequency={method.sparsity_frequency} after --sparsity_begin_step={begin}."
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


def rerandomize_callback(config: Config, num_steps: int) -> Rerandomize | None:
    """What re-draws entries between training steps; None for other methods than iterand.

    Args:
        config: of the run.
        num_steps: of the whole run.
    """
    method = config.method
    if method.method != "iterand":
        return None
    last_step = method.rerandomization_last_step or None
    rate: Any = method.rerandomization_rate
    decays = {"linear": functools.partial(keras.optimizers.schedules.PolynomialDecay, end_learning_rate=0.0)}
    decays["cosine"] = keras.optimizers.schedules.CosineDecay
    if method.rerandomization_schedule in decays:
        rate = decays[method.rerandomization_schedule](rate, decay_steps=max(last_step or num_steps, 1))
    mode: Any = method.rerandomization_mode
    if mode == "blend":
        mode = Blended(method.rerandomization_blend_old, method.rerandomization_blend_new)
    return Rerandomize(method.rerandomization_period, rate, mode=mode, last_step=last_step)


def sparsity_end_step(config: Config, num_steps: int) -> int:
    """The step from which on the network has its final sparsity.

    It is one at which the schedule prunes, a multiple of --sparsity_frequency after the first.
    """
    method = config.method
    if method.sparsity_schedule == "constant":
        return 0
    begin, frequency = method.sparsity_begin_step, method.sparsity_frequency
    return method.sparsity_end_step or begin + (num_steps * 3 // 4 - begin) // frequency * frequency


def sparsity_callback(config: Config, num_steps: int) -> SparsityScheduler | None:
    """What raises the sparsity between training steps, or ranks kernels together; None where there is neither.

    Args:
        config: of the run.
        num_steps: of the whole run.
    """
    method, sparsity = config.method, config.supermask.sparsity
    if method.method == "dense" or not num_steps:
        return None
    if method.sparsity_schedule == "constant":
        is_global = config.supermask.mask == GLOBAL
        return SparsityScheduler(sparsity, method.sparsity_frequency) if is_global else None
    decay = _polynomial_decay()
    return SparsityScheduler(
        decay(
            initial_sparsity=method.initial_sparsity,
            final_sparsity=sparsity,
            begin_step=method.sparsity_begin_step,
            end_step=sparsity_end_step(config, num_steps),
            frequency=method.sparsity_frequency,
        )
    )


def _polynomial_decay():
    """The schedule of tensorflow-model-optimization."""
    # Its import sets the variable TF_USE_LEGACY_KERAS. What tf.keras is stays as it was at its first use, and keras_cv
    # follows that; processes that are started later read the variable.
    tf.keras.version()
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow_model_optimization as tfmot

    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return tfmot.sparsity.keras.PolynomialDecay


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
