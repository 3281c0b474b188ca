"""Real runs on digits: two processes of main.py share a grid, one is killed, and the report is complete."""

import csv
import signal
import subprocess
import sys
import time

import pytest
from command_line import ROOT, here, result_of

POINTS = [f"width_factor={width},seed={seed}" for width in (0.25, 0.5) for seed in (1, 2)]
GRID = ["--grid=width_factor=0.25,0.5", "--grid=seed=1,2"]
TRAINING = ["--dataset=digits", "--model=conv2", "--batch_size=64", "--epochs=20"]


def start(directory, *flags):
    command = [sys.executable, str(ROOT / "main.py"), "--mode=sweep", *TRAINING, f"--model_dir={directory}", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint_of(process, directory):
    """Waits until a run of this process has trained some epochs; returns the point's name."""
    for line in process.stdout:
        cells = line.split()
        if cells[1:2] == ["running"] and cells[2].endswith(f":{process.pid}"):
            metrics = directory / cells[0] / "metrics.csv"
            while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
                assert process.poll() is None
                time.sleep(0.05)
            return cells[0]
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_a_killed_process_of_two_loses_nothing(storage_flags, tmp_path, capsys):
    directory = tmp_path / "sweep"
    flags = [*GRID, "--sweep_patience=5", *storage_flags]
    killed, other = start(directory, *flags), start(directory, *flags)
    point = wait_for_checkpoint_of(killed, directory)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    printed, errors = other.communicate(timeout=300)
    assert other.returncode == 0, errors
    assert f"{point}: its process has given no sign for 5 s" in printed
    for name in POINTS:
        assert result_of(directory / name)["epochs"] == 20
        log = (directory / f"{name}.log").read_text()
        assert (" after epoch " in log) == (name == point), log
        # Each epoch was trained once.
        assert sum(line.startswith("epoch") for line in log.splitlines()) == 20
    capsys.readouterr()
    assert here("--mode=report", f"--model_dir={directory}") == 0
    with (directory / "report" / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["width_factor"], row["seeds"]) for row in rows] == [("0.25", "2"), ("0.5", "2")]
    assert "not finished" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_diverging_learning_rate_is_named(tmp_path, capsys):
    directory = tmp_path / "sweep"
    flags = [*TRAINING, "--epochs=2", "--grid=learning_rate=0.1,1e30", f"--model_dir={directory}"]
    assert here("--mode=sweep", *flags) == 7
    error = capsys.readouterr().err
    assert "1 of 2 points failed, the others are done: learning_rate=1e+30 (exit code 5: " in error
    assert "train anew with a lower --learning_rate" in error
    assert result_of(directory / "learning_rate=0.1")["epochs"] == 2
    assert here("--mode=report", f"--model_dir={directory}") == 0
    assert f"not finished: {directory}/learning_rate=1e+30 (error: " in capsys.readouterr().out
