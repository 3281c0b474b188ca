"""Sweeps whose points are fake runs: each once, by several processes, on every storage; failures; searches."""

import collections
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from command_line import here

from iterand_tf import cli

HERE = pathlib.Path(__file__).parent
HANGS = "0.125"


@pytest.fixture(autouse=True)
def _fake_runs(monkeypatch):
    monkeypatch.setattr(cli, "command_of_a_point", lambda: [sys.executable, str(HERE / "fake_run.py")])


def start(directory, *flags):
    """A process of the sweep in DIRECTORY/sweep."""
    command = [sys.executable, str(HERE / "sweep_process.py"), f"--model_dir={directory}/sweep", *flags]
    environment = {"PYTHONPATH": f"{HERE.parent.parent}:{HERE.parent}", "PATH": ""}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sweep(directory, *flags):
    return here("--mode=sweep", f"--model_dir={directory}/sweep", *flags)


def notes(directory):
    """How often each thing happened to each point."""
    lines = (directory / "RUNS").read_text().splitlines() if (directory / "RUNS").exists() else []
    return collections.Counter(lines)


def test_two_processes_share_the_points(storage_flags, tmp_path):
    flags = ["--grid=width_factor=0.25,0.5", "--grid=seed=1,2,3", "--momentum=0.5", *storage_flags]
    processes = [start(tmp_path, *flags) for _ in range(2)]
    for process in processes:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "0 waiting, 0 running, 6 done, 0 failed" in printed
    names = {f"width_factor={width},seed={seed}" for width in (0.25, 0.5) for seed in (1, 2, 3)}
    expected = {f"{what} {name}" for what in ("began", "ended") for name in names}
    assert notes(tmp_path) == dict.fromkeys(expected, 1)
    workers = {line.split()[2] for line in printed.splitlines() if " done " in line and line.startswith("width")}
    assert len(workers) == 2


@pytest.mark.parametrize(
    "storage_url",
    ["journal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sqlite", "postgresql"))],
    indirect=True,
)
def test_the_point_of_a_killed_process_is_continued_by_another(storage_flags, tmp_path, capsys):
    flags = [f"--grid=learning_rate={HANGS},0.25", "--sweep_patience=2", *storage_flags]
    killed = start(tmp_path, *flags)
    checkpoint = tmp_path / "sweep" / f"learning_rate={HANGS}" / "checkpoint"
    while not checkpoint.exists():
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert sweep(tmp_path, *flags) == 0
    assert f"learning_rate={HANGS}: its process has given no sign for 2 s" in capsys.readouterr().out
    runs = notes(tmp_path)
    # The run of the killed process was asked to stop.
    assert runs.pop(f"stopped learning_rate={HANGS}", 1) == 1
    assert runs == {
        f"began learning_rate={HANGS}": 1,
        f"continued learning_rate={HANGS}": 1,
        f"ended learning_rate={HANGS}": 1,
        "began learning_rate=0.25": 1,
        "ended learning_rate=0.25": 1,
    }


def test_a_process_that_slept_too_long_gives_up_its_point(tmp_path):
    flags = [f"--grid=learning_rate={HANGS}", "--sweep_patience=2"]
    sleeper = start(tmp_path, *flags)
    while not (tmp_path / "sweep" / f"learning_rate={HANGS}" / "checkpoint").exists():
        assert sleeper.poll() is None, sleeper.communicate()
        time.sleep(0.05)
    sleeper.send_signal(signal.SIGSTOP)
    assert sweep(tmp_path, *flags) == 0
    sleeper.send_signal(signal.SIGCONT)
    printed, errors = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 0, errors
    assert f"learning_rate={HANGS}: another process has taken it up" in printed
    assert notes(tmp_path) == {
        f"{what} learning_rate={HANGS}": 1 for what in ("began", "continued", "ended", "stopped")
    }


def test_a_signal_stops_the_run_and_gives_the_point_back(tmp_path):
    flags = [f"--grid=learning_rate={HANGS}"]
    process = start(tmp_path, *flags)
    while not (tmp_path / "sweep" / f"learning_rate={HANGS}" / "checkpoint").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: the state is saved" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    began = time.monotonic()
    assert sweep(tmp_path, *flags) == 0
    # Nobody waited for the patience of a minute.
    assert time.monotonic() - began < 30
    assert notes(tmp_path)[f"continued learning_rate={HANGS}"] == 1


def test_a_failing_point_is_named_and_the_others_are_done(tmp_path, capsys):
    flags = ["--grid=learning_rate=0.1,1e30", "--grid=seed=1,2"]
    assert sweep(tmp_path, *flags) == 7
    captured = capsys.readouterr()
    assert "0 waiting, 0 running, 2 done, 2 failed" in captured.out
    assert captured.err.startswith("error: 2 of 4 points failed, the others are done: learning_rate=1e+30,seed=1 (exit")
    assert "exit code 5: the loss is nan after step 1" in captured.err
    assert sum(notes(tmp_path).values()) == 6
    assert sweep(tmp_path, *flags) == 7
    assert sum(notes(tmp_path).values()) == 6, "nothing is run again"
    assert sweep(tmp_path, *flags, "--resume") == 7
    assert sum(notes(tmp_path).values()) == 8, "the two that failed are tried again"


def test_a_grid_runs_its_first_points(tmp_path):
    assert sweep(tmp_path, "--grid=seed=1,2,3", "--sweep_max_points=2") == 0
    assert notes(tmp_path) == {f"{what} seed={seed}": 1 for what in ("began", "ended") for seed in (1, 2)}


def chosen(directory):
    """The learning rates of a search, in the order of its points."""
    files = sorted(directory.glob("sweep/*/flags.txt"))
    flags = [line for file in files for line in file.read_text().splitlines()]
    return [float(flag.partition("=")[2]) for flag in flags if flag.startswith("--learning_rate=")]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_goes_by_validation_accuracy(sampler, tmp_path, capsys):
    flags = ["--search=learning_rate=0.001:1:log", "--sweep_max_points=4", f"--sweep_sampler={sampler}"]
    assert sweep(tmp_path / "one", *flags) == sweep(tmp_path / "two", *flags) == 0
    rates = chosen(tmp_path / "one")
    assert len(set(rates)) == 4
    assert all(0.001 <= rate <= 1 for rate in rates)
    assert chosen(tmp_path / "two") == rates
    table = capsys.readouterr().out
    # The fake run's validation accuracy is 1 - learning rate, its test accuracy the opposite.
    assert f"{1 - rates[0]:.4f}" in table


def test_a_dry_run_lists_the_points_and_writes_nothing(tmp_path, capsys):
    assert sweep(tmp_path, "--grid=seed=1,2", "--sweep_dry_run") == 0
    assert "seed=2  --seed=2\n2 points" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# A row has flags, the exit code and a part of the sentence.
BAD_SWEEPS = [
    ([], 1, "needs --grid=FLAG=V1,V2 or --search=FLAG=LOW:HIGH, and not both"),
    (["--grid=seed"], 1, "--grid=seed must be FLAG=V1,V2,..."),
    (["--grid=sede=1,2"], 1, "sede is not a flag that a network depends on"),
    (["--grid=model_dir=a,b"], 1, "model_dir is not a flag that a network depends on"),
    (["--grid=seed=1,one"], 1, "seed"),
    (["--grid=seed=1,1"], 1, "gives seed one value twice"),
    (["--grid=seed=1,2", "--grid=seed=3"], 1, "gives seed twice"),
    (["--grid=sparsity=0.5,1"], 1, "--sparsity must be at least 0 and below 1, not 1.0"),
    (["--grid=dataset=folder:a/b,digits"], 1, "makes directories of the values"),
    (["--grid=validation_split=0,0.1"], 1, "a sweep compares validation accuracies"),
    (["--search=learning_rate=0.1:1"], 1, "--search needs --sweep_max_points"),
    (["--search=learning_rate=1:0.1", "--sweep_max_points=2"], 1, "needs LOW below HIGH."),
    (["--search=momentum=0:0.9:log", "--sweep_max_points=2"], 1, "needs LOW below HIGH, and LOW above 0"),
    (["--search=method=dense:iterand", "--sweep_max_points=2"], 1, "method is not a number"),
    (["--grid=seed=1", "--sweep_max_points=-1"], 1, "--sweep_max_points must be at least 0"),
    (["--grid=seed=1", "--sweep_storage=nonsense"], 1, "--sweep_storage names no database"),
    (["--grid=seed=1", "--model_dir="], 3, "--mode=sweep needs --model_dir"),
]


@pytest.mark.parametrize(("flags", "code", "sentence"), BAD_SWEEPS, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_sentence(flags, code, sentence, tmp_path, capsys):
    assert sweep(tmp_path, *flags) == code
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error
    assert not notes(tmp_path)


def test_a_damaged_journal_is_named_and_can_be_removed(tmp_path, capsys):
    assert sweep(tmp_path, "--grid=seed=1,2") == 0
    journal = tmp_path / "sweep" / "sweep.journal"
    journal.write_text(journal.read_text().rstrip()[:-5] + '{"op_code": 1}\n')
    assert sweep(tmp_path, "--grid=seed=1,2") == 3
    assert "sweep.journal is damaged; remove it and repeat the command" in capsys.readouterr().err
    journal.unlink()
    assert sweep(tmp_path, "--grid=seed=1,2") == 0


def test_a_sweep_of_other_flags_is_refused(tmp_path, capsys):
    assert sweep(tmp_path, "--grid=seed=1") == 0
    assert sweep(tmp_path, "--grid=seed=1,2") == 3
    assert "holds a sweep of other flags (--grid=seed=1,2 instead of seed=1)" in capsys.readouterr().err
    assert sweep(tmp_path, "--grid=seed=1", "--sparsity=0.7") == 3
    assert "(--sparsity=0.7 instead of --sparsity=0.5)" in capsys.readouterr().err


def test_the_directory_of_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "flags.txt").touch()
    assert sweep(tmp_path, "--grid=seed=1") == 3
    assert "holds a run; give another directory for the sweep" in capsys.readouterr().err


def test_the_state_is_kept_where_optuna_dashboard_reads_it(tmp_path):
    import optuna

    assert sweep(tmp_path, "--grid=seed=1,2") == 0
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "sweep" / "sweep.journal"))
    name = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["study"]
    study = optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))
    assert [trial.params for trial in study.trials] == [{"seed": 1}, {"seed": 2}]
    assert [trial.value for trial in study.trials] == [0.9, 0.9]
