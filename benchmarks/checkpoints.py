"""Training with checkpoints inside an epoch against training without, with --data_dir: Conv6 x0.25 on CIFAR-10.

One run as main.py trains it; every other epoch has a checkpoint every 100 steps, files flushed to the disk. The first
epoch, which also compiles, is left out. Each epoch with checkpoints stands against the mean of its two neighbours.
"""

import csv
import itertools
import pathlib
import statistics
import tempfile
import time
from typing import ClassVar

import environment  # noqa: F401
from sides import Case, Ratio

from iterand_tf import cli
from iterand_tf.training import run as training
from iterand_tf.training.callbacks import SaveState
from iterand_tf.training.config import Config

FLAGFILE = pathlib.Path(__file__).parent.parent / "flags" / "cifar10_conv6_sc_iterand.flags"
CHECKPOINT_STEPS = 100
PAIRS = 10


class AlternatingSaveState(SaveState):
    """Saves inside every other epoch, and counts the seconds that takes."""

    seconds: ClassVar[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if epoch == 0:
            self._steps_between = self._checkpoint_steps
        self._checkpoint_steps = 0 if epoch % 2 else self._steps_between

    def on_train_batch_end(self, batch, logs=None):
        saved = self._saved_step
        start = time.perf_counter()
        super().on_train_batch_end(batch, logs)
        if self._saved_step != saved:
            self.seconds.append(time.perf_counter() - start)


def cases(options):
    if options.quick or not options.data_dir:
        return
    training.SaveState = AlternatingSaveState
    with tempfile.TemporaryDirectory() as directory:
        flags = [f"--flagfile={FLAGFILE}", "--width_factor=0.25", f"--checkpoint_steps={CHECKPOINT_STEPS}"]
        flags += [f"--data_dir={options.data_dir}", f"--model_dir={directory}/run", f"--epochs={2 * PAIRS + 2}"]
        config = Config.from_values(cli.parse(["main.py", *flags]).flag_values_dict())
        training.train(config)
        with pathlib.Path(directory, "run", "metrics.csv").open() as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    # Seconds of 100 steps.
    images = CHECKPOINT_STEPS * config.data.batch_size
    without = [images / speed for speed in speeds[1::2]]
    seconds = {
        "with": [images / speed for speed in speeds[2::2]],
        "without": [statistics.mean(pair) for pair in itertools.pairwise(without)],
    }
    values = {"one save, s": statistics.median(AlternatingSaveState.seconds)}
    yield Case(f"{CHECKPOINT_STEPS} steps and a checkpoint", seconds, (Ratio("with", "without"),), values)
