"""Training and evaluation of one configuration."""

import contextlib
import dataclasses
import math
import shutil
import statistics
import sys
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data, models, optimization
from iterand_tf.callbacks import Rerandomize, current_step
from iterand_tf.checkpoints import TrainingState, restore_model
from iterand_tf.config import Config
from iterand_tf.epoch_callbacks import EpochLine, MetricsFile, SaveState, Throughput, save_model
from iterand_tf.errors import DataError, ModelDirError, UserError
from iterand_tf.model_dir import ModelDir
from iterand_tf.sparsity_report import sparsity_report


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
    model_dir = ModelDir.for_run(config)
    with _environment(config):
        splits = load_data(config)
        steps_per_epoch = math.ceil(splits.train.num_examples / config.data.batch_size)
        model = build_model(config, splits)
        _compile(model, config, steps_per_epoch)
        model_dir.create(config)
        state = TrainingState(model, model_dir.checkpoints)
        if state.restore():
            print(f"continuing {model_dir.path} after epoch {int(state.epoch)}")
        metrics_file = MetricsFile(model_dir.metrics, int(state.epoch))
        print(f"{_summary(model, config, splits)}\nwriting {model_dir.path}", flush=True)
        try:
            _fit(model, config, splits, steps_per_epoch, model_dir, state, metrics_file)
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            if not model_dir.best_model.exists():
                shutil.rmtree(model_dir.path)
            raise _unreadable(config, error) from error
        result = _result(model, config, splits, model_dir, state, metrics_file)
        model_dir.write_result(result)
        return TrainResult(model_dir, result)


def evaluate(config: Config, model_dir: ModelDir) -> dict[str, Any]:
    """Test accuracy of a run's last network and of its best network, as `train` computes them.

    Raises:
        UserError: if the data or the run's files are missing.
    """
    with _environment(config):
        splits = load_data(config)
        try:
            return {
                "test_accuracy": _accuracy(load_model(model_dir, "last"), splits.test, config),
                "best_test_accuracy": _accuracy(load_model(model_dir, "best"), splits.test, config),
                "num_test_examples": splits.test.num_examples,
            }
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            raise _unreadable(config, error) from error


def _unreadable(config, error):
    """What an error of TensorFlow's input pipeline means to the user."""
    reason = error.message.split("{{")[0].strip().splitlines()[0]
    return DataError(f"--dataset={config.data.dataset} cannot be read ({reason}); mend or remove what is broken in it.")


def load_model(model_dir: ModelDir, which: str) -> keras.Model:
    """The network of a run, not compiled: `"best"` by validation accuracy, or `"last"`.

    Raises:
        ModelDirError: if the run has not saved one yet.
    """
    missing = ModelDirError(f"--model_dir={model_dir.path} holds no trained network yet; continue it with --resume.")
    if not model_dir.best_model.exists():
        raise missing
    try:
        model = keras.models.load_model(model_dir.best_model, compile=False)
    except (ValueError, OSError) as error:
        raise ModelDirError(f"{model_dir.best_model} cannot be read and may be damaged; train anew.") from error
    if which == "last" and not restore_model(model, model_dir.checkpoints):
        raise missing
    return model


def load_data(config: Config) -> data.Splits:
    """The dataset of a run, with its seeded validation split."""
    return data.load(
        config.data.dataset,
        config.data.data_dir,
        config.data.validation_split,
        config.data.max_train_examples,
        config.data.image_size,
        config.training.seed,
    )


def build_model(config: Config, splits: data.Splits) -> keras.Model:
    """The run's network before training: stock layers for the method dense, else Subnet layers."""
    method = config.method
    layers: models.LayerFactory
    if method.method == "dense":
        layers = models.DenseFactory(method.weight_distribution, method.weight_scale, config.training.seed)
    else:
        layers = models.SubnetFactory(
            sparsity=method.sparsity,
            head_sparsity=method.head_sparsity,
            score_transform=method.score_transform,
            weight_distribution=method.weight_distribution,
            weight_scale=method.weight_scale,
            score_distribution=method.score_distribution,
            score_scale=method.score_scale,
            seed=config.training.seed,
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
    except ValueError as error:
        reason = str(error).partition(" Received")[0].rstrip(".")
        raise UserError(
            f"--model={config.model.model} does not fit --dataset={config.data.dataset}: {reason}."
        ) from error


def _compile(model, config, steps_per_epoch):
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
        **_loss_and_metrics(),
    )


def _fit(model, config, splits, steps_per_epoch, model_dir, state, metrics_file):
    options, first_epoch = config.training, int(state.epoch)
    on_terminal = sys.stdout.isatty()
    callbacks = [
        *method_callbacks(config),
        Throughput(splits.train.num_examples),
        metrics_file,
        keras.callbacks.TensorBoard(str(model_dir.tensorboard), write_graph=False),
        *([] if on_terminal else [EpochLine(options.epochs)]),
        SaveState(state, model_dir.best_model),
    ]
    if first_epoch < options.epochs:
        validation = splits.validation and splits.validation.evaluation_batches(config.data.batch_size)
        model.fit(
            splits.train.training_batches(
                config.data.batch_size, config.data.augmentation, options.seed, first_epoch, options.epochs
            ),
            epochs=options.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps_per_epoch,
            shuffle=False,
            validation_data=validation,
            callbacks=callbacks,
            verbose=1 if on_terminal else 0,
        )
    if not model_dir.best_model.exists():  # no epoch was asked for
        save_model(model, model_dir.best_model)
        state.save()


def method_callbacks(config: Config) -> list[keras.callbacks.Callback]:
    """What the method does between training steps."""
    if config.method.method != "iterand":
        return []
    return [Rerandomize(config.method.rerandomization_period, config.method.rerandomization_rate)]


def _result(model, config, splits, model_dir, state, metrics_file):
    """The contents of result.json."""
    best = load_model(model_dir, "best")
    rows = metrics_file.rows
    speeds = [float(row["images_per_second"]) for row in rows[1:] or rows]  # the first epoch also compiles
    total = sparsity_report(best).total
    num_weights = total.num_weights or num_kernel_entries(best)
    last_accuracy = rows and rows[-1].get("val_accuracy")
    return {
        "test_accuracy": _accuracy(model, splits.test, config),
        "best_test_accuracy": _accuracy(best, splits.test, config),
        "validation_accuracy": float(last_accuracy) if last_accuracy else None,
        "best_validation_accuracy": float(state.best_accuracy) if last_accuracy else None,
        "epochs": int(state.epoch),
        "steps": current_step(model),
        "images_per_second": statistics.median(speeds) if speeds else None,
        "sparsity": total.sparsity,
        "num_weights": num_weights,
        "num_kept": total.num_kept if total.num_weights else num_weights,
        "seconds": float(state.seconds),
    }


def num_kernel_entries(model: keras.Model) -> int:
    """Number of kernel entries of a dense model, biases and BatchNormalization left out."""
    return sum(math.prod(variable.shape) for variable in model.variables if variable.name == "kernel")


def _accuracy(model, examples, config):
    if not model.compiled:
        model.compile(**_loss_and_metrics())
    batches = examples.evaluation_batches(config.data.batch_size)
    return float(model.evaluate(batches, verbose=0, return_dict=True)["accuracy"])


def _loss_and_metrics():
    return {"loss": keras.losses.CategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]}


def _summary(model, config, splits):
    held_out = splits.validation.num_examples if splits.validation else 0
    lines = [
        f"{config.method.method} on {config.data.dataset}: {splits.train.num_examples:,} training, {held_out:,} "
        f"validation and {splits.test.num_examples:,} test images of {'x'.join(map(str, splits.train.image_shape))}"
    ]
    if config.method.method == "dense":
        lines.append(f"{model.name}: {num_kernel_entries(model):,} weights, all trained")
    else:
        lines.append(str(sparsity_report(model)))
    return "\n".join(lines)


@contextlib.contextmanager
def _environment(config):
    """Seeds and precision of the run; the global precision is put back afterwards."""
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(config.training.seed)
    if config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.training.precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
