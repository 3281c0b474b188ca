"""--mode=report on the directories of runs: its files, its sentences, and runs as JSON."""

import json
import shutil

import pytest
from command_line import here

from iterand_tf.experiments.finished_runs import Run, read_flags
from iterand_tf.training.model_dir import ModelDir
from tools.records import Record


def test_a_report_of_two_directories(trained_run, tmp_path, capsys):
    first, second = (shutil.copytree(trained_run.model_dir, tmp_path / name / "run") for name in ("first", "second"))
    flags = (second / "flags.txt").read_text()
    (second / "flags.txt").write_text(flags.replace("--seed=0", "--seed=1"))
    (tmp_path / "second" / "begun").mkdir()
    (tmp_path / "second" / "begun" / "flags.txt").touch()
    (tmp_path / "second" / "begun.log").write_text("epoch 1/2\nerror: the loss is nan.\n")
    assert here("--mode=report", f"--model_dir={first.parent},{second.parent}") == 0
    printed = capsys.readouterr().out
    assert "0,1" in printed
    assert f"not finished: {tmp_path}/second/begun (error: the loss is nan.)" in printed
    files = {path.name for path in (tmp_path / "first" / "report").iterdir()}
    assert files >= {"report.html", "report.md", "report.csv", "report.txt", "training_curves.png"}
    assert "sparsity_by_layer.png" in files
    assert not (tmp_path / "second" / "report").exists()


@pytest.mark.parametrize(
    ("prepare", "code", "sentence"),
    [
        (lambda run: None, 3, "holds no run; give directories of runs or sweeps"),
        (lambda run: (run / "flags.txt").touch(), 1, "is finished; report on it when one is"),
        (lambda run: (run / "result.json").write_text("{"), 3, "cannot be read and may be damaged"),
    ],
    ids=["no_run", "not_finished", "damaged"],
)
def test_bad_input_is_one_sentence(prepare, code, sentence, tmp_path, capsys):
    prepare(tmp_path)
    if (tmp_path / "result.json").exists():
        (tmp_path / "flags.txt").touch()
    assert here("--mode=report", f"--model_dir={tmp_path}") == code
    (error,) = capsys.readouterr().err.splitlines()
    assert sentence in error


def test_a_run_as_json_is_the_run(trained_run, tmp_path):
    model_dir = ModelDir(trained_run.model_dir)
    run = Run.read(model_dir).with_layers(model_dir)
    assert run.layers[0].keys() == {"name", "num_weights", "num_kept"}
    record = Record(run, {"commit": "abc"})
    (tmp_path / "model.json").write_text(record.to_json())
    assert Record.from_json(tmp_path / "model.json") == record
    assert json.loads(record.to_json())["flags"] == [
        f"--{name}={value}" for name, value in run.flags.items() if value != read_flags("")[name]
    ]
