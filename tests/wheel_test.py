"""The wheel holds the library and the exporter, and works from another directory."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_the_installed_wheel_works_from_another_directory(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("iterand_tf", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={tmp_path}", str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={installed}", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
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
