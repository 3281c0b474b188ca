"""The examples run as printed in their first lines, and reach what they promise."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
# By the example's name: the least test accuracy. train_with_jax.py runs in tests/jax_test.py.
ACCURACY = {
    "lstm_digits": 0.9,
    "magnitude_pruning": 0.9,
    "mobilenet_v2_digits": 0.5,
    "vision_transformer_digits": 0.9,
}


def run(name, *arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "name", [name if name == "lstm_digits" else pytest.param(name, marks=pytest.mark.slow) for name in ACCURACY]
)
def test_reaches_its_accuracy(name, tmp_path):
    accuracies = re.findall(r"test accuracy (\d\.\d+)", run(name, cwd=tmp_path))
    assert float(accuracies[-1]) >= ACCURACY[name]


def test_every_example_is_tested():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == ACCURACY.keys() | {"train_with_jax", "make_npz"}
    for name in names:
        assert f"python examples/{name}.py" in (ROOT / "examples" / f"{name}.py").read_text().split('"""')[1]


def test_make_npz_writes_what_the_example_reads(tmp_path):
    run("make_npz", "--dataset=digits", "--out=digits.npz", cwd=tmp_path)
    with np.load(tmp_path / "digits.npz") as arrays:
        assert arrays["train_images"].shape == (1437, 8, 8, 1)
        assert arrays["train_images"].dtype == np.uint8
        assert sorted(set(arrays["test_labels"].tolist())) == list(range(10))
        assert len(arrays["test_images"]) == len(arrays["test_labels"]) == 360
