"""The training of one run in this process."""

import contextlib
import dataclasses
import signal
import statistics
import sys
from typing import Any

import keras
import tensorflow as tf

from iterand_tf import data
from iterand_tf.errors import DataError, ModelDirError, UserError
from iterand_tf.interruption import InterruptedRunError, deferred_signals
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.strategies.strategy import ShareStatistics, any_worker, distribute, workers_differ
from iterand_tf.training.checkpoints import Checkpoints, TrainingState
from iterand_tf.training.config import Config
from iterand_tf.training.dataset import DatasetRecord, listed
from iterand_tf.training.epoch_figures import EventFiles, MaskChanges, MetricsFile, Throughput
from iterand_tf.training.model_dir import ModelDir
from iterand_tf.training.network import accuracy, load_model, num_kernel_entries
from iterand_tf.training.saving import ModelFile, SaveState
from iterand_tf.training.schedules import rerandomize_callback, sparsity_callback, sparsity_end_step


@dataclasses.dataclass(frozen=True)
class TrainingLoop:
    """One training run in this process; of several workers, the chief alone writes."""

    config: Config
    splits: data.Splits
    strategy: tf.distribute.Strategy | None
    model_dir: ModelDir
    model: keras.Model
    steps_per_epoch: int
    chief: bool

    def run(self) -> dict[str, Any]:
        """Trains to the end; returns the contents of result.json, or of several workers on others than the chief {}."""
        rerandomize = rerandomize_callback(self.config, self._num_steps)
        methods = [each for each in (rerandomize, sparsity_callback(self.config, self._num_steps)) if each]
        checkpoints = Checkpoints(self.model_dir.checkpoints, self.config.run.max_checkpoints)
        state = TrainingState(self.model, checkpoints, rerandomize)
        resumed = self._restore(state)
        with self.model_dir.being_read(self.model_dir.metrics):
            metrics_file = MetricsFile(self.model_dir.metrics, state.epoch)
        finished = self.model_dir.read_result() if state.epoch == self.config.training.epochs else {}
        if self.chief:
            self._print_beginning(state, resumed)
        reading = data.reading(self.config.data.dataset)
        with self._removed_after_nothing(state), reading, self.model_dir.being_written():
            if self.chief:
                splits = self.splits
                record = DatasetRecord(splits.class_names, splits.image_size, splits.sources, splits.notes)
                self.model_dir.write_dataset(record)
            if not resumed:
                # From now on a run without checkpoints has lost them.
                state.save(self.chief)
            self._fit(state, methods, metrics_file)
        if not self.chief:
            return {}
        last = load_model(self.model_dir, "last") if self.strategy else self.model
        with data.reading(self.config.data.dataset):
            result = self._result(last, state, metrics_file.rows)
        # What an export has added to the result of a finished run stays.
        self.model_dir.write_result(finished | result)
        return result

    def _restore(self, state):
        """Continues at the newest checkpoint, if the run is to be resumed and has one; returns whether it is so."""
        run = self.config.run
        resumed = state.restore() if run.resume else False
        # A checkpoint is written before any of these.
        later = (self.model_dir.tensorboard, self.model_dir.metrics, self.model_dir.best_model)
        if run.resume and not resumed and any(path.exists() for path in later):
            raise ModelDirError(f"--model_dir={run.model_dir} has lost all of its checkpoints; train anew elsewhere.")
        if workers_differ(self.strategy, state.step):
            raise ModelDirError(
                f"the workers see other checkpoints in --model_dir={run.model_dir}; let it be one directory."
            )
        return resumed

    def _print_beginning(self, state, resumed):
        if self.config.run.resume:
            place = f"after epoch {state.epoch} and {state.batch} steps" if resumed else "at its beginning"
            print(f"continuing {self.model_dir.path} {place}")
        print(f"{_summary(self.model, self.config, self.splits)}\nwriting {self.model_dir.path}", flush=True)

    @contextlib.contextmanager
    def _removed_after_nothing(self, state):
        """Removes the directory after a surprising error before the first step, so that the next try may use it."""
        try:
            yield
        except Exception as error:
            nothing_trained = not (self.config.run.resume or state.epoch or state.batch)
            expected = isinstance(error, UserError | InterruptedRunError) and not isinstance(error, DataError)
            if self.chief and nothing_trained and not expected:
                self.model_dir.remove()
            raise

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
            methods = [*methods, ShareStatistics(self.strategy)]
        if not self.chief:
            return [*methods, save]
        return [
            *methods,
            MaskChanges(self.model_dir.tensorboard / "layers", self.steps_per_epoch),
            Throughput(self.splits.train.num_examples, self.config.data.batch_size),
            metrics_file,
            EventFiles(self.model_dir.tensorboard),
            *([] if sys.stdout.isatty() else [keras.callbacks.LambdaCallback(on_epoch_end=self._print_epoch)]),
            save,
        ]

    def _print_epoch(self, epoch, logs):
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        print(f"epoch {epoch + 1}/{self.config.training.epochs}  {values}", flush=True)

    def _result(self, last, state, rows):
        """The contents of result.json, computed on one device, from the last network and the rows of metrics.csv."""
        # Before the first epoch the last network is the best.
        best = load_model(self.model_dir, "best") if rows else last
        # The first epoch also compiles.
        speeds = [float(row["images_per_second"]) for row in rows[1:] or rows]
        total = sparsity_report(best).total
        num_weights = total.num_weights or num_kernel_entries(best)
        last_accuracy = rows and rows[-1].get("val_accuracy")
        test_accuracy = accuracy(last, self.splits.test, self.config)
        return {
            "test_accuracy": test_accuracy,
            "best_test_accuracy": accuracy(best, self.splits.test, self.config) if rows else test_accuracy,
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
