"""A run of the command line that is continued: where it goes on, and what is refused."""

import fcntl
import os
import shutil

import pytest
from command_line import SMALL, STEPS_PER_EPOCH, checkpoint_names, here, result_of, resume


@pytest.mark.parametrize("kept", [("best.keras", "metrics.csv", "result.json"), ()], ids=["some_epochs", "no_epoch"])
def test_lost_checkpoints_are_an_error_and_no_new_beginning(kept, model_dir, capsys):
    shutil.rmtree(model_dir / "checkpoints")
    for name in {"best.keras", "metrics.csv", "result.json"} - set(kept):
        (model_dir / name).unlink()
    assert resume(model_dir) == 3
    assert "has lost all of its checkpoints" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(model_dir, capsys):
    flags = (model_dir / "flags.txt").read_text()
    (model_dir / "flags.txt").write_text(flags.replace("--width_factor=0.25", "--width_factor=0.5"))
    assert resume(model_dir) == 3
    assert "the newest checkpoint is of another network" in capsys.readouterr().err


def test_a_run_continues_on_another_number_of_devices(model_dir, capsys):
    *_, inside_the_epoch, last = checkpoint_names(model_dir)
    assert inside_the_epoch == "step-0000000040.npz"
    (model_dir / "checkpoints" / last).unlink()
    assert resume(model_dir, "--strategy=mirrored", "--virtual_devices=2") == 0
    assert "after epoch 1 and 19 steps" in capsys.readouterr().out
    assert checkpoint_names(model_dir)[-1] == last
    assert result_of(model_dir)["steps"] == 2 * STEPS_PER_EPOCH


def test_a_second_run_in_a_directory_refuses(model_dir, capsys):
    descriptor = os.open(model_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert resume(model_dir) == 3
    finally:
        os.close(descriptor)
    assert "is in use by another run; give another directory" in capsys.readouterr().err


def test_a_run_that_was_killed_at_its_very_start_starts_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".flags.txt.tmp").write_text("--data")
    assert here(*SMALL, "--epochs=0", f"--model_dir={tmp_path}/model", "--resume") == 0
    assert not (tmp_path / "model" / ".flags.txt.tmp").exists()


def test_a_finished_run_that_is_resumed_keeps_what_its_export_has_recorded(model_dir):
    before = result_of(model_dir)
    assert "export_bytes" in before
    assert resume(model_dir) == 0
    assert result_of(model_dir) == before
