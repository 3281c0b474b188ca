"""Training and evaluation of one configuration."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import signal
import statistics
import sys
import zlib
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data
from iterand_tf.data.reading import reason
from iterand_tf.errors import DataError, LostWorkerError, ModelDirError, UserError
from iterand_tf.interruption import InterruptedRunError, deferred_signals
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.strategies.strategy import (
    any_worker,
    distribute,
    is_chief,
    make_strategy,
    num_replicas,
    num_workers,
    of_chief,
    workers_differ,
)
from iterand_tf.training.assembly import (
    build_model,
    check_dataset,
    check_devices,
    check_steps,
    compile_model,
    environment,
    load_data,
    load_test_data,
    loss_and_metrics,
    rerandomize_callback,
    sparsity_callback,
    sparsity_end_step,
)
from iterand_tf.training.callbacks import (
    EpochLine,
    EventFiles,
    MetricsFile,
    ModelFile,
    SaveState,
    ShareStatistics,
    Throughput,
)
from iterand_tf.training.checkpoints import Checkpoints
from iterand_tf.training.config import Config
from iterand_tf.training.dataset_record import DatasetRecord, listed
from iterand_tf.training.flags_file import binding_flags
from iterand_tf.training.mask_changes import MaskChanges
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.state import TrainingState, restore_model


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
                job = _Job(config, splits, strategy, model_dir, model, steps_per_epoch, chief)
                return job.run()


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
                "test_accuracy": _accuracy(last, test, config),
                "best_test_accuracy": _accuracy(best, test, config),
                "num_test_examples": test.num_examples,
            }


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


@dataclasses.dataclass(frozen=True)
class _Job:
    """One training run in this process; of several workers, the chief alone writes."""

    config: Config
    splits: data.Splits
    strategy: tf.distribute.Strategy | None
    model_dir: ModelDir
    model: keras.Model
    steps_per_epoch: int
    chief: bool

    def run(self) -> TrainResult:
        run = self.config.run
        num_steps = self._num_steps
        rerandomize = rerandomize_callback(self.config, num_steps)
        methods = [each for each in (rerandomize, sparsity_callback(self.config, num_steps)) if each]
        state = TrainingState(self.model, Checkpoints(self.model_dir.checkpoints, run.max_checkpoints), rerandomize)
        resumed = state.restore() if run.resume else False
        # A checkpoint is written before any of these.
        later = (self.model_dir.tensorboard, self.model_dir.metrics, self.model_dir.best_model)
        if run.resume and not resumed and any(path.exists() for path in later):
            raise ModelDirError(f"--model_dir={run.model_dir} has lost all of its checkpoints; train anew elsewhere.")
        if workers_differ(self.strategy, state.step):
            raise ModelDirError(
                f"the workers see other checkpoints in --model_dir={run.model_dir}; let it be one directory."
            )
        with self.model_dir.being_read(self.model_dir.metrics):
            metrics_file = MetricsFile(self.model_dir.metrics, state.epoch)
        finished = self.model_dir.read_result() if state.epoch == self.config.training.epochs else {}
        if self.chief:
            if run.resume:
                place = f"after epoch {state.epoch} and {state.batch} steps" if resumed else "at its beginning"
                print(f"continuing {self.model_dir.path} {place}")
            print(f"{_summary(self.model, self.config, self.splits)}\nwriting {self.model_dir.path}", flush=True)
        try:
            with data.reading(self.config.data.dataset), self.model_dir.being_written():
                if self.chief:
                    self.model_dir.write_dataset(DatasetRecord.of(self.splits))
                if not resumed:
                    # From now on a run without checkpoints has lost them.
                    state.save(self.chief)
                self._fit(state, methods, metrics_file)
        except Exception as error:
            nothing_trained = not (run.resume or state.epoch or state.batch)
            expected = isinstance(error, UserError | InterruptedRunError) and not isinstance(error, DataError)
            if self.chief and nothing_trained and not expected:
                # Nothing is lost, and the next try is not refused.
                self.model_dir.remove()
            raise
        if not self.chief:
            return TrainResult(self.model_dir, {})
        last = load_model(self.model_dir, "last") if self.strategy else self.model
        with data.reading(self.config.data.dataset):
            result = _result(last, self.config, self.splits, self.model_dir, state, metrics_file)
        # What an export has added to the result of a finished run stays.
        self.model_dir.write_result(finished | result)
        return TrainResult(self.model_dir, result)

    @property
    def _num_steps(self):
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.training.epochs

    def _fit(self, state, methods, metrics_file):
        epochs = self.config.training.epochs
        with deferred_signals() as request:

            def should_stop():
                if any_worker(self.strategy, request.number is not None):
                    return request.number or signal.SIGTERM
                return None

            callbacks = self._callbacks(state, methods, metrics_file, should_stop)
            if state.batch:
                self._fit_epochs(state.epoch, state.epoch + 1, state.batch, callbacks)
            if state.epoch < epochs:
                self._fit_epochs(state.epoch, epochs, 0, callbacks)
        # Where no epoch was asked for, the first network is the best.
        if self.chief and not self.model_dir.best_model.exists():
            ModelFile(self.model_dir.best_model).write(self.model)

    def _fit_epochs(self, first_epoch, epochs, first_batch, callbacks):
        options, batch_size = self.config.training, self.config.data.batch_size
        train, validation = self.splits.train, self.splits.validation
        augmentation = self.config.data.augmentation
        self.model.fit(
            distribute(
                self.strategy,
                lambda shard: train.training_batches(
                    batch_size, augmentation, options.seed, first_epoch, epochs, first_batch, shard
                ),
            ),
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=self.steps_per_epoch - first_batch,
            shuffle=False,
            validation_data=validation
            and distribute(self.strategy, lambda shard: validation.evaluation_batches(batch_size, shard)),
            callbacks=callbacks,
            verbose=1 if self.chief and sys.stdout.isatty() else 0,
        )

    def _callbacks(self, state, methods, metrics_file, should_stop):
        run = self.config.run
        save = SaveState(
            state,
            ModelFile(self.model_dir.best_model),
            self.steps_per_epoch,
            run.checkpoint_steps,
            self.chief,
            should_stop,
            sparsity_end_step(self.config, self._num_steps),
        )
        if self.strategy and not self.config.model.synchronized_batch_normalization:
            methods = [*methods, ShareStatistics(functools.partial(of_chief, self.strategy))]
        if not self.chief:
            return [*methods, save]
        return [
            *methods,
            MaskChanges(self.model_dir.tensorboard / "layers", self.steps_per_epoch),
            Throughput(self.splits.train.num_examples, self.config.data.batch_size),
            metrics_file,
            EventFiles(self.model_dir.tensorboard),
            *([] if sys.stdout.isatty() else [EpochLine(self.config.training.epochs)]),
            save,
        ]


def _result(last, config, splits, model_dir, state, metrics_file):
    """The contents of result.json, computed on one device; `last` is the last network."""
    rows = metrics_file.rows
    # Before the first epoch the last network is the best.
    best = load_model(model_dir, "best") if rows else last
    # The first epoch also compiles.
    speeds = [float(row["images_per_second"]) for row in rows[1:] or rows]
    total = sparsity_report(best).total
    num_weights = total.num_weights or num_kernel_entries(best)
    last_accuracy = rows and rows[-1].get("val_accuracy")
    test_accuracy = _accuracy(last, splits.test, config)
    return {
        "test_accuracy": test_accuracy,
        "best_test_accuracy": _accuracy(best, splits.test, config) if rows else test_accuracy,
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


def _accuracy(model, examples, config):
    if not model.compiled:
        model.compile(**loss_and_metrics())
    batches = examples.evaluation_batches(config.data.batch_size)
    return float(model.evaluate(batches, verbose=0, return_dict=True)["accuracy"])


def _summary(model, config, splits):
    held_out = splits.validation.num_examples if splits.validation else 0
    lines = [
        f"{config.method.method} on {config.data.dataset}: {splits.train.num_examples:,} training, {held_out:,} "
        f"validation and {splits.test.num_examples:,} test images of {'x'.join(map(str, splits.train.image_shape))}",
        f"{len(splits.class_names)} classes: {listed(splits.class_names)}",
        *splits.notes,
    ]
    if config.method.method == "dense":
        lines.append(f"{model.name}: {num_kernel_entries(model):,} weights, all trained")
    else:
        lines.append(str(sparsity_report(model)))
    return "\n".join(lines)
