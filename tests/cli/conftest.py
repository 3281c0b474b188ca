"""One run for all tests of the command line, which none of them changes, and copies of it that they may change."""

import shutil

import pytest
from command_line import SMALL, TrainedRun, done


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Trained and exported by a process of its own; the last two checkpoints are of the steps 40 and 42."""
    root = tmp_path_factory.mktemp("trained_run")
    model_dir, export_dir = root / "model", root / "export"
    flags = [*SMALL, "--deterministic", "--rerandomization_period=5", "--checkpoint_steps=5"]
    process = done(*flags, f"--model_dir={model_dir}", f"--export_dir={export_dir}")
    return TrainedRun(model_dir, export_dir, process.stdout)


@pytest.fixture
def model_dir(trained_run, tmp_path):
    """A copy of the run's directory."""
    return shutil.copytree(trained_run.model_dir, tmp_path / "model")
