"""docs/results.md is written from the JSON files of runs, and is up to date."""

import dataclasses
import json
import pathlib
import shutil

import pytest
from made_up_runs import made_up_run

from iterand_tf.experiments.finished_runs import read_flags
from tools import results
from tools.records import Record

ROOT = pathlib.Path(__file__).parent.parent.parent
ROWS = """
[[section]]
title = "Results"
text = "Words."

[[section]]
title = "Conv6, short"
name = "short"
plots = ["training_curves"]

[[section.rows]]
name = "short"
flagfile = "cifar10_conv6_sc_iterand"
flags = "--epochs=5"
seeds = [1, 2]
beside = "0.6 elsewhere"
"""


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A directory of documents with rows, and the repository's flagfiles."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "flags", tmp_path / "flags")
    directory = tmp_path / "docs"
    (directory / "results").mkdir(parents=True)
    (directory / "results" / "rows.toml").write_text(ROWS)
    return directory


def record_of_row(seed, *flags):
    """The record of a made-up run that has the flags of a row."""
    text = (ROOT / "flags" / "cifar10_conv6_sc_iterand.flags").read_text()
    values = read_flags("\n".join([text, "--epochs=5", f"--seed={seed}", *flags]))
    source = {"commit": "abc1234", "hardware": "a processor, 2 cores", "command": "python main.py"}
    return Record(dataclasses.replace(made_up_run("sc_iterand", 1.0, seed, epochs=5), flags=values), source)


def test_the_document_is_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    text, pictures = results.results_text(pathlib.Path("docs"))
    assert pathlib.Path("docs/results.md").read_text() == text, "run make results"
    for name in pictures:
        assert (ROOT / "docs" / "results" / name).exists(), "run make results"


def test_every_file_of_a_run_has_a_row(monkeypatch):
    monkeypatch.chdir(ROOT)
    directory = pathlib.Path("docs/results")
    names = {row.name for section in results.read_sections(directory) for row in section["rows"]}
    assert {path.stem for path in directory.glob("*.json")} <= names


def test_a_row_without_a_file_was_not_run(docs):
    (docs / "results" / "short_seed2.json").write_text(record_of_row(2).to_json())
    results.write()
    lines = (docs / "results.md").read_text().splitlines()
    (first, second) = (line for line in lines if line.startswith("| IteRand SC"))
    assert first == "| IteRand SC | cifar10_conv6_sc_iterand | 1 | not run |  |  |  |  | 0.6 elsewhere |"
    assert second.startswith("| IteRand SC | cifar10_conv6_sc_iterand | 2 | 0.")
    assert second.endswith("| 100 | abc1234 | A | 0.6 elsewhere |")
    assert "- A: a processor, 2 cores" in lines
    assert "    python main.py --flagfile=flags/FLAGFILE.flags --epochs=5 --seed=SEED --data_dir=TFDS_ROOT" in lines
    assert (docs / "results" / "short_training_curves.png").exists()


def test_seeds_are_taken_together(docs):
    for seed in (1, 2):
        (docs / "results" / f"short_seed{seed}.json").write_text(record_of_row(seed).to_json())
    results.write()
    assert "| IteRand SC | 1,2 | " in (docs / "results.md").read_text()


def test_a_file_of_other_flags_is_refused(docs, capsys):
    (docs / "results" / "short_seed1.json").write_text(record_of_row(1, "--sparsity=0.7").to_json())
    assert results.main(["write"]) == 1
    assert "is of a run with other flags than its row" in capsys.readouterr().err


def finished(directory, run):
    """The directory of a run without a network."""
    directory.mkdir(parents=True)
    flags = {name: value for name, value in run.flags.items() if value not in (None, "")}
    (directory / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in flags.items()))
    (directory / "result.json").write_text(json.dumps(run.result))
    (directory / "metrics.csv").write_text("epoch,val_accuracy\n1,0.5\n")
    return directory


def test_collect_finds_the_row_of_a_run(docs, tmp_path, capsys):
    run = record_of_row(2, "--data_dir=elsewhere", "--checkpoint_steps=7").run
    model_dir = finished(tmp_path / "runs" / "one", run)
    unfinished = finished(tmp_path / "runs" / "two", record_of_row(1).run)
    (unfinished / "result.json").unlink()
    for version, contents in (("2", b"0" * 1000), ("10", b"1" * 1000 + b"2")):
        (tmp_path / "exports" / "dense" / version).mkdir(parents=True)
        (tmp_path / "exports" / "dense" / version / "saved_model.pb").write_bytes(contents)
    arguments = ["collect", "runs", "--commit=abc", "--hardware=mine", "--export_dir=exports"]
    assert results.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{model_dir.relative_to(tmp_path)}: docs/results/short_seed2.json" in printed
    assert "two: not finished, left out" in printed
    record = json.loads((docs / "results" / "short_seed2.json").read_text())
    assert record["source"]["command"].endswith("cifar10_conv6_sc_iterand.flags --epochs=5 --seed=2")
    assert record["source"]["hardware"] == "mine"
    assert "--data_dir=elsewhere" not in record["flags"]
    assert 10 < record["result"]["dense_gzip_export_bytes"] < 100
    assert results.main(["write"]) == 0


def test_collect_refuses_a_run_of_no_row(docs, tmp_path, capsys):
    finished(tmp_path / "runs" / "one", record_of_row(3).run)
    assert results.main(["collect", "runs", "--commit=abc"]) == 1
    assert "has the flags of no row of docs/results/rows.toml; add one, or give --name" in capsys.readouterr().err
    assert results.main(["collect", "runs", "--commit=abc", "--name=other"]) == 0
    assert (docs / "results" / "other.json").exists()
