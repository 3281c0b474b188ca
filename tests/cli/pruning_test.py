"""Pruning by the command line: a network that was trained before, on a schedule, continued after a stop."""

import shutil

import keras
import numpy as np
import pytest
from command_line import SMALL, checkpoint_names, done, here, result_of, resume

from iterand_tf import sparsity_report

PRUNE = [
    *SMALL,
    "--method=magnitude_pruning",
    "--learning_rate=0.01",
    "--sparsity=0.8",
    "--sparsity_schedule=polynomial",
    "--sparsity_frequency=5",
]


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("dense") / "model"
    done(*SMALL, "--method=dense", "--learning_rate=0.01", "--epochs=1", f"--model_dir={model_dir}")
    return model_dir


def test_begins_with_the_network_that_was_trained(dense_run, tmp_path):
    flags = [*PRUNE, f"--initial_model={dense_run}/best.keras", "--epochs=0", f"--model_dir={tmp_path}/model"]
    assert here(*flags, "--sparsity_schedule=constant", "--sparsity=0") == 0
    assert result_of(tmp_path / "model")["test_accuracy"] == result_of(dense_run)["test_accuracy"]


def test_the_best_network_has_the_final_sparsity_and_is_exported(dense_run, tmp_path):
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert here(*PRUNE, f"--initial_model={dense_run}/best.keras", *directories) == 0
    result = result_of(tmp_path / "model")
    assert result["sparsity"] == pytest.approx(0.8, abs=1e-4)
    assert result["test_accuracy"] >= result_of(dense_run)["test_accuracy"] - 0.1
    best = keras.models.load_model(tmp_path / "model" / "best.keras", compile=False)
    for layer in sparsity_report(best).layers:
        assert layer.num_kept == layer.num_weights - round(0.8 * layer.num_weights)
    assert result["max_abs_difference"] < 1e-4


def test_continues_at_the_sparsity_where_it_stopped(tmp_path):
    whole = tmp_path / "whole"
    flags = [*PRUNE, "--deterministic", "--checkpoint_steps=12", "--max_checkpoints=9", "--method=random_pruning"]
    assert here(*flags, f"--model_dir={whole}") == 0
    part = shutil.copytree(whole, tmp_path / "part")
    names = checkpoint_names(part)
    (stopped,) = (name for name in names if "12" in name)
    for name in names[names.index(stopped) + 1 :]:
        (part / "checkpoints" / name).unlink()
    assert resume(part) == 0
    last = checkpoint_names(whole)[-1]
    ours, theirs = (np.load(run / "checkpoints" / last) for run in (part, whole))
    for name in theirs.files:
        if name.startswith(("model", "optimizer")):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_the_default_schedule_ends_at_the_sparsity_that_was_asked_for(tmp_path):
    flags = ["--sparsity_frequency=4", "--epochs=1", "--max_train_examples=600", f"--model_dir={tmp_path}/model"]
    assert here(*PRUNE, *flags, "--width_factor=0.1") == 0
    result = result_of(tmp_path / "model")
    assert result["steps"] == 10
    assert result["sparsity"] == pytest.approx(0.8, abs=1e-3)


def test_a_network_that_ends_in_probabilities_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(inputs))).save(
        "other.keras"
    )
    assert here(*PRUNE, "--initial_model=other.keras") == 1
    assert "other.keras ends in probabilities; let it end in logits" in capsys.readouterr().err


def test_a_network_for_other_images_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))).save("other.keras")
    assert here(*PRUNE, "--initial_model=other.keras") == 1
    assert "takes (8, 8, 3) and gives (10,); --dataset=digits has images of (8, 8, 1)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
