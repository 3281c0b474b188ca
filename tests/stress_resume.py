"""Kills a training run with SIGKILL again and again, resumes it each time, and compares the end with a run left alone.

    python tests/stress_resume.py --kills=20

Every other kill comes while a checkpoint is being written. At the end kernels, scores, BatchNormalization statistics,
optimizer and step must be the same bytes, validation accuracies the same, and no resume may have begun before the last
checkpoint that was there.
"""

import argparse
import csv
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

MAIN = pathlib.Path(__file__).parent.parent / "main.py"
FLAGS = [
    "--dataset=digits",
    "--model=conv2",
    "--width_factor=0.25",
    "--batch_normalization",
    "--batch_size=64",
    "--rerandomization_period=7",
    "--checkpoint_steps=5",
    "--deterministic",
]
STEPS_PER_EPOCH = 21
# A kill comes so many seconds after the first checkpoint at the latest, or, in this part of the cases, after the start.
LONGEST_LIFE = 0.5
EARLY = 0.2
PATIENCE = 300.0


def start(model_dir, flags):
    command = [sys.executable, str(MAIN), *FLAGS, *flags, f"--model_dir={model_dir}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(model_dir: pathlib.Path, flags: Sequence[str]) -> None:
    """Runs main.py to its end."""
    process = start(model_dir, flags)
    process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise AssertionError(f"the run ended with exit code {process.returncode}")


def newest_step(model_dir):
    return max((int(re.sub(r"\D", "", file.stem)) for file in model_dir.glob("checkpoints/step-*.npz")), default=0)


def kill_somewhere(model_dir, flags, while_saving):
    """Starts or continues the run and kills it; returns the step it continued from, or None where it ended before."""
    process = start(model_dir, flags)
    step = None
    for line in process.stdout:
        if match := re.search(r"after epoch (\d+) and (\d+) steps", line):
            step = int(match[1]) * STEPS_PER_EPOCH + int(match[2])
        if line.startswith("writing"):
            break
    before = newest_step(model_dir)
    if random.random() < EARLY:
        time.sleep(random.uniform(0, LONGEST_LIFE))
    else:
        # The first steps are compiled for seconds.
        while process.poll() is None and newest_step(model_dir) == before:
            time.sleep(0.01)
        time.sleep(random.uniform(0, LONGEST_LIFE))
        while while_saving and process.poll() is None and not any(model_dir.glob("checkpoints/.*.tmp")):
            pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    return step, process.returncode == -signal.SIGKILL


def arrays(model_dir):
    """The last state, without the time that it took."""
    with np.load(max(model_dir.glob("checkpoints/step-*.npz"))) as archive:
        return {name: archive[name].tobytes() for name in archive.files if name != "progress"}


def accuracies(model_dir):
    """Of the network that each epoch left, as metrics.csv has them."""
    with (model_dir / "metrics.csv").open() as file:
        return [row["val_accuracy"] for row in csv.DictReader(file)]


def stress(
    directory: pathlib.Path,
    kills: int,
    epochs: int,
    more_flags: Sequence[str] = (),
    finish: Callable[[pathlib.Path, Sequence[str]], None] = finish,
) -> int:
    """Raises AssertionError unless the killed run ends as the one that is left alone.

    Args:
        directory: for both runs.
        kills: how many.
        epochs: of a run.
        more_flags: of both.
        finish: runs main.py to its end; the tests have one that spares TensorFlow's import.

    Returns:
        How many kills hit a running process.
    """
    flags = [f"--epochs={epochs}", *more_flags]
    whole, killed = directory / "whole", directory / "killed"
    finish(whole, flags)
    hits = 0
    for number in range(kills):
        before = newest_step(killed)
        resume = ["--resume"] if killed.exists() else []
        step, hit = kill_somewhere(killed, [*flags, *resume], while_saving=number % 2 == 1)
        hits += hit
        left = " and a part of another" if any(killed.glob("checkpoints/.*.tmp")) else ""
        print(f"kill {number + 1}: continued at step {step or 0} of {before}; left step {newest_step(killed)}{left}")
        if (step or 0) != before:
            raise AssertionError(f"continued at step {step} although step {before} was saved")
    finish(killed, [*flags, "--resume"])
    expected, found = arrays(whole), arrays(killed)
    if expected.keys() != found.keys():
        raise AssertionError(f"other arrays: {expected.keys() ^ found.keys()}")
    for name, contents in expected.items():
        if found[name] != contents:
            raise AssertionError(f"{name} differs")
    if accuracies(whole) != accuracies(killed):
        raise AssertionError("validation accuracies differ")
    print(f"{len(expected)} arrays are equal byte for byte after {hits} kills of a running process")
    return hits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as directory:
        stress(pathlib.Path(directory), args.kills, args.epochs)


if __name__ == "__main__":
    main()
