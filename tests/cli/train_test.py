"""A run of the command line, from flags to the files that it leaves."""

import csv

import pytest
from command_line import SMALL, STEPS_PER_EPOCH, here, result_of

from iterand_tf.training.config import option_fields


def rows_of(model_dir):
    with (model_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_leaves_every_file_of_a_run(trained_run):
    names = {path.name for path in trained_run.model_dir.iterdir()}
    assert names == {
        "flags.txt",
        "dataset.json",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "best.keras",
        "result.json",
    }
    result = result_of(trained_run.model_dir)
    # Chance is 0.1; two epochs reach 0.49 to 0.52, by the rounding of the processor.
    assert result["test_accuracy"] > 0.4
    assert result["num_weights"] == 9 * 16 + 9 * 16 * 16 + 256 * 64 + 64 * 64 + 640
    assert result["num_kept"] == result["num_weights"] / 2
    assert result["sparsity"] == 0.5
    assert result["steps"] == 2 * STEPS_PER_EPOCH
    assert result["images_per_second"] > 0
    assert result["max_abs_difference"] == 0
    assert result["bits_per_weight"] > result["entropy_bits_per_weight"] == pytest.approx(1.5, abs=0.01)
    size = sum(file.stat().st_size for file in (trained_run.export_dir / "1").rglob("*") if file.is_file())
    assert result["export_bytes"] == size
    rows = rows_of(trained_run.model_dir)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["21", "42"]
    assert float(rows[1]["val_accuracy"]) == pytest.approx(result["validation_accuracy"])
    assert int(rows[1]["rerandomized_weights"]) > 0


def test_prints_one_line_an_epoch_and_the_weights_of_each_layer(trained_run):
    lines = trained_run.printed.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "stage1_conv2  3x3x16x16    2,304   1,152    1,152    0.5000" in trained_run.printed


def test_evaluate_gives_the_accuracies_of_training(trained_run, capsys):
    assert here("--mode=evaluate", f"--model_dir={trained_run.model_dir}") == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    result = result_of(trained_run.model_dir)
    assert float(lines["test_accuracy"]) == result["test_accuracy"]
    assert float(lines["best_test_accuracy"]) == result["best_test_accuracy"]
    assert lines["num_test_examples"] == "360"


def test_the_flags_file_makes_the_run_anew(trained_run, tmp_path):
    flags = [f"--flagfile={trained_run.model_dir}/flags.txt", "--export_dir="]
    assert here(*flags, f"--model_dir={tmp_path}/model") == 0
    again, first = result_of(tmp_path / "model"), result_of(trained_run.model_dir)
    for name in ("test_accuracy", "validation_accuracy", "steps", "num_kept"):
        assert again[name] == first[name]


@pytest.mark.parametrize(
    "flags",
    [
        ["--method=dense", "--learning_rate=0.01"],
        ["--method=edge_popup", "--score_transform=abs", "--weight_distribution=kaiming_uniform"],
        ["--optimizer=adamw", "--learning_rate=0.01", "--lr_schedule=multi_step", "--validation_split=0"],
        ["--strategy=mirrored", "--virtual_devices=2", "--batch_size=63", "--max_train_examples=191"],
        ["--method=random_pruning", "--learning_rate=0.01", "--mask=global"],
        ["--mask=global", "--rerandomization_mode=recycle", "--rerandomization_schedule=cosine"],
        ["--binarize", "--min_per_channel=1", "--rerandomization_mode=blend", "--rerandomization_schedule=linear"],
        ["--batch_normalization_gains", "--batch_normalization", "--score_transform=abs"],
        ["--precision=mixed_bfloat16", "--augmentation=cutmix", "--steps_per_execution=2", "--warmup_epochs=1"],
    ],
    ids=lambda flags: flags[0],
)
def test_methods_and_options_lower_the_loss_and_are_exported(flags, tmp_path):
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert here(*SMALL, "--max_train_examples=200", "--rerandomization_period=3", *flags, *directories) == 0
    result = result_of(tmp_path / "model")
    assert result["steps"] == 2 * 4
    assert result["sparsity"] == (0.0 if "--method=dense" in flags else 0.5)
    assert result["num_kept"] == (1 - result["sparsity"]) * result["num_weights"]
    first, second = (float(row["loss"]) for row in rows_of(tmp_path / "model"))
    assert second < first
    assert (tmp_path / "export" / "1" / "saved_model.pb").exists()


def test_help_names_every_flag_with_its_help(capsys):
    assert here("--help") == 0
    printed = capsys.readouterr().out.replace("--[no]", "--")
    for fields in option_fields().values():
        for field in fields:
            assert f"--{field.name}" in printed
