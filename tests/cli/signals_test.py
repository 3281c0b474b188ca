"""SIGTERM and SIGINT: the run saves its state and ends, and continues from there."""

import os
import signal
import subprocess
import sys

import pytest
from command_line import ROOT, SMALL, STEPS_PER_EPOCH, checkpoint_names, here, result_of

from iterand_tf.training.epoch_figures import MetricsFile, Throughput


def test_a_signal_from_outside_ends_the_process_with_its_state_saved(tmp_path):
    arguments = [*SMALL, "--epochs=500", f"--model_dir={tmp_path}/model", "--deterministic"]
    process = subprocess.Popen([sys.executable, str(ROOT / "main.py"), *arguments], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=60)
    assert process.returncode == 130
    newest = checkpoint_names(tmp_path / "model")[-1]
    assert int(newest.removeprefix("step-").removesuffix(".npz")) >= 2 * STEPS_PER_EPOCH


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_between_two_steps(number, code, tmp_path, monkeypatch):
    end_of_step = Throughput.on_train_batch_end

    def signalled(callback, batch, logs=None):
        end_of_step(callback, batch, logs)
        if batch == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Throughput, "on_train_batch_end", signalled)
    assert here(*SMALL, f"--model_dir={tmp_path}/model") == code
    assert checkpoint_names(tmp_path / "model")[-1] == "step-0000000003.npz"


def test_a_signal_during_validation_saves_the_epoch(tmp_path, monkeypatch):
    arguments = [*SMALL, f"--model_dir={tmp_path}/model"]
    with monkeypatch.context() as patch:
        terminate = staticmethod(lambda logs=None: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(MetricsFile, "on_test_begin", terminate)
        assert here(*arguments) == 143
    assert checkpoint_names(tmp_path / "model")[-1] == "step-0000000021.npz"
    assert here(*arguments, "--resume") == 0
    assert result_of(tmp_path / "model")["steps"] == 2 * STEPS_PER_EPOCH


def test_the_second_signal_ends_at_once():
    # The module is imported by itself, which spares TensorFlow's import.
    script = """
import os, signal, sys
sys.path.insert(0, "iterand_tf")
from interruption import deferred_signals
with deferred_signals() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    print(request.number, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGINT, f"{signal.SIGTERM.value}\n")
    assert "once more ends at once" in result.stderr
