"""The network that a configuration names, and what it is compiled with."""

import math
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data, models, optimization
from iterand_tf.checks import ArgumentError
from iterand_tf.cloning import is_graph
from iterand_tf.conversion import to_subnet
from iterand_tf.errors import ModelDirError, UserError, first_line
from iterand_tf.strategies import enable_distributed_fit
from iterand_tf.training.checkpoints import Checkpoints, restore_model
from iterand_tf.training.config import PRUNING, Config, flag_error
from iterand_tf.training.model_dir import ModelDir


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
    if method.method == "dense" or method.method in PRUNING:
        distribution, scale = config.supermask.weight_distribution, config.supermask.weight_scale
        if method.method in PRUNING and distribution == "signed_constant":
            # Magnitudes that are all equal cannot be ranked.
            distribution = models.StockFactory.weight_distribution
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


def load_model(model_dir: ModelDir, which: str) -> keras.Model:
    """The network of a run, not compiled: `"best"` by validation accuracy, or `"last"`."""
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
