"""main.py as the tests run it: in a process of its own, or in theirs."""

import dataclasses
import json
import pathlib
import subprocess
import sys

from iterand_tf import cli

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ["--dataset=digits", "--model=conv2", "--width_factor=0.25", "--batch_size=64", "--epochs=2"]
STEPS_PER_EPOCH = 21


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run of two epochs, exported once.

    Args:
        model_dir: where it is kept.
        export_dir: where its export is.
        printed: what it wrote to the standard output.
    """

    model_dir: pathlib.Path
    export_dir: pathlib.Path
    printed: str


def command(*arguments):
    """Runs main.py in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def done(*arguments):
    """The same, which must succeed."""
    result = command(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def here(*arguments):
    """Runs main.py in this process, which saves the seconds that TensorFlow's import takes; returns the exit code."""
    return cli.main(["main.py", *map(str, arguments)])


def resume(model_dir, *flags):
    """Continues a run in this process by its own flags, but exports nothing; returns the exit code."""
    return here(f"--flagfile={model_dir}/flags.txt", "--export_dir=", *flags, f"--model_dir={model_dir}", "--resume")


def result_of(model_dir):
    """The contents of result.json."""
    return json.loads((model_dir / "result.json").read_text())


def checkpoint_names(model_dir):
    """Files of the checkpoints, the oldest first."""
    return sorted(path.name for path in (model_dir / "checkpoints").iterdir())
