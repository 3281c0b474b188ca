"""What checkpoints inside an epoch cost: images a second of epochs with and without them, in one run.

    python benchmarks/checkpoint_cost.py --data_dir=TFDS_ROOT

Trains Conv6 at a quarter of its width on CIFAR-10, as main.py does. Every other epoch has checkpoints; the first
epoch, which also compiles, is left out. Each epoch with checkpoints is compared with the mean of its two neighbours,
so that a drift of the machine's speed cancels out. The time inside the saves, files flushed to the disk, is counted
too.
"""

import argparse
import csv
import itertools
import pathlib
import statistics
import tempfile
import time
from typing import ClassVar

import environment  # noqa: F401

import main as command_line
from iterand_tf.training import run as training
from iterand_tf.training.callbacks import SaveState
from iterand_tf.training.config import Config

FLAGFILE = command_line.QUICKSTART.with_name("cifar10_conv6_sc_iterand.flags")


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--checkpoint_steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=10)
    args = parser.parse_args()
    training.SaveState = AlternatingSaveState
    with tempfile.TemporaryDirectory() as directory:
        flags = [f"--flagfile={FLAGFILE}", "--width_factor=0.25"]
        flags += [f"--data_dir={args.data_dir}", f"--model_dir={directory}/run", f"--epochs={2 * args.pairs + 2}"]
        values = command_line.parse(["main.py", *flags, f"--checkpoint_steps={args.checkpoint_steps}"])
        config = Config.from_values(values.flag_values_dict())
        training.train(config)
        with pathlib.Path(directory, "run", "metrics.csv").open() as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    without, with_checkpoints = speeds[1::2], speeds[2::2]
    neighbours = [(1 / before + 1 / after) / 2 for before, after in itertools.pairwise(without)]
    costs = [1 / speed / alone - 1 for speed, alone in zip(with_checkpoints, neighbours, strict=True)]
    quartiles = statistics.quantiles(costs, n=4)
    print(
        f"{statistics.median(without):.0f} images/s without, {statistics.median(with_checkpoints):.0f} with a "
        f"checkpoint every {args.checkpoint_steps} steps; cost {quartiles[1]:.2%} of the time (median of {len(costs)} "
        f"epochs against their neighbours, quartiles {quartiles[0]:.2%} and {quartiles[2]:.2%})"
    )
    save = statistics.median(AlternatingSaveState.seconds)
    between = args.checkpoint_steps * config.data.batch_size / statistics.median(without)
    print(f"a save takes {1e3 * save:.1f} ms, {save / between:.2%} of the {between:.2f} s that the steps take")


if __name__ == "__main__":
    main()
