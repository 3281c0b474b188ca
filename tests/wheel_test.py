"""The wheel holds the library, the exporter and the command line, and works from another directory."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from command_line import result_of

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The directory that the wheel is installed in, without its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    for name in ("iterand_tf", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={directory}", str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    target = directory / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={target}", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def test_the_installed_library_works_from_another_directory(installed, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tempfile, keras, export, iterand_tf\n"
        "from iterand_tf import data\nfrom iterand_tf.training import run\n"
        "assert iterand_tf.__file__.startswith(sys.argv[1]) and export.__file__.startswith(sys.argv[1])\n"
        "model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(3)])\n"
        "print(export.export_saved_model(model, tempfile.mkdtemp()).max_abs_difference)\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", script, str(installed)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == 0


def start(command, installed, directory):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_command_trains_and_exports_from_another_directory(installed, tmp_path):
    flags = ["--epochs=1", "--export_dir=exports/digits", "--model_dir=run"]
    result = start([sys.executable, "-m", "iterand_tf", *flags], installed, tmp_path)
    # TensorFlow, too, is quiet.
    assert (result.returncode, result.stderr) == (0, "")
    assert result_of(tmp_path / "run")["max_abs_difference"] == 0
    assert (tmp_path / "exports" / "digits" / "1" / "saved_model.pb").exists()


def test_the_installed_script_names_itself(installed, tmp_path):
    result = start([sys.executable, str(installed / "bin" / "iterand-tf"), "--nope"], installed, tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: Unknown command line flag 'nope'; see iterand-tf --help.\n"


@pytest.mark.slow
def test_an_installed_sweep_starts_its_points(installed, tmp_path):
    flags = ["--mode=sweep", "--grid=seed=1,2", "--epochs=1", "--max_train_examples=100", "--model_dir=sweep"]
    result = start([sys.executable, "-m", "iterand_tf", *flags], installed, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2 done, 0 failed" in result.stdout
