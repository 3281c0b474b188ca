"""What checkpoints inside an epoch cost: images a second of main.py with and without --checkpoint_steps.

    python benchmarks/checkpoint_cost.py --data_dir=TFDS_ROOT

Conv6 at a quarter of its width on CIFAR-10; the two take turns. The first epoch of each run, which also compiles, is
left out. On a machine whose speed drifts, the time of one save against that of the steps between two tells more.
"""

import argparse
import csv
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(ROOT))

import keras

from iterand_tf import models
from iterand_tf.checkpoints import Checkpoints
from iterand_tf.training_state import TrainingState

BATCH_SIZE = 128  # of the flagfile
SAVES = 50


def images_per_second(directory, flags):
    command = [sys.executable, str(ROOT / "main.py"), f"--flagfile={ROOT}/flags/cifar10_conv6_sc_iterand.flags"]
    command += ["--width_factor=0.25", "--epochs=3", f"--model_dir={directory}", *flags]
    subprocess.run(command, check=True, capture_output=True)
    with (directory / "metrics.csv").open() as file:
        return statistics.mean(float(row["images_per_second"]) for row in list(csv.DictReader(file))[1:])


def seconds_of_a_save():
    """Median of the seconds that the state takes to save, files flushed to the disk."""
    model = models.build("conv6", (32, 32, 3), 10, models.SubnetFactory(), 0.25)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    seconds = []
    with tempfile.TemporaryDirectory() as directory:
        state = TrainingState(model, Checkpoints(pathlib.Path(directory), 3))
        for step in range(SAVES):
            model.optimizer.iterations.assign(step)
            start = time.perf_counter()
            state.save()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--checkpoint_steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    without, with_checkpoints = [], []
    for number in range(args.repeats):
        with tempfile.TemporaryDirectory() as directory:
            sides = [(0, without), (args.checkpoint_steps, with_checkpoints)]
            for steps, speeds in sides[:: 1 if number % 2 else -1]:
                flags = [f"--data_dir={args.data_dir}", f"--checkpoint_steps={steps}"]
                speeds.append(images_per_second(pathlib.Path(directory, str(steps)), flags))
    cost = statistics.median(a / b - 1 for a, b in zip(without, with_checkpoints, strict=True))
    print(
        f"without {statistics.median(without):.0f} images/s, with a checkpoint every {args.checkpoint_steps} steps "
        f"{statistics.median(with_checkpoints):.0f}; cost {cost:.1%} of the time (median of the pairwise ratios)"
    )
    between = args.checkpoint_steps * BATCH_SIZE / statistics.median(without)
    save = seconds_of_a_save()
    print(f"one save takes {1e3 * save:.1f} ms, {save / between:.2%} of the {between:.2f} s that the steps take")


if __name__ == "__main__":
    main()
