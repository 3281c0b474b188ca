"""The table of layers in docs/design.md: imports point down only, and BUILD is the module graph."""

import ast
import importlib.metadata
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A module may import those of lower ranks, and of its own where the pair stands in SAME_RANK.
RANKS = {
    "iterand_tf.errors": 0,
    "iterand_tf.files": 0,
    "iterand_tf.version": 0,
    "iterand_tf.masks": 0,
    "iterand_tf.distributions": 0,
    "iterand_tf.rerandomization": 0,
    "iterand_tf.seeds": 0,
    "iterand_tf.layers": 1,
    "iterand_tf.callbacks": 2,
    "iterand_tf.models": 2,
    "iterand_tf.sparsity_report": 2,
    "iterand_tf": 3,
    "iterand_tf.data": 4,
    "iterand_tf.optimization": 4,
    "iterand_tf.training.checkpoints": 4,
    "iterand_tf.strategies": 5,
    "iterand_tf.interruption": 0,
    "iterand_tf.strategies.local_workers": 0,
    "iterand_tf.strategies.rendezvous": 0,
    "iterand_tf.strategies.multi_worker_fit": 4,
    "iterand_tf.training.config": 6,
    "iterand_tf.training.state": 6,
    "iterand_tf.training.assembly": 7,
    "iterand_tf.training.model_dir": 7,
    "iterand_tf.training.callbacks": 8,
    "iterand_tf.training": 9,
    "export": 9,
    "main": 10,
}
REACHES_INTO_KERAS = "iterand_tf.strategies.multi_worker_fit"
KERAS_ONLY_BELOW = 4  # masks alone may wrap its selection in tf.function
ABSENT_FROM_THE_LIBRARY = (
    "export",
    "iterand_tf.data",
    "iterand_tf.training",
    "keras_cv",
    "tensorflow_datasets",
    "absl.flags",
)


def _name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    _name(file): file for file in [ROOT / "main.py", *ROOT.glob("iterand_tf/**/*.py"), *ROOT.glob("export/**/*.py")]
}


def imports(file):
    """Full names of the modules, of this project or others, that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
    return found


def group(name):
    """The entry of RANKS that a module belongs to: its own, or that of its package below the top."""
    while name not in RANKS:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    ours = group(name)
    for imported in imports(FILES[name]) & FILES.keys():
        theirs = group(imported)
        pure = RANKS[ours] == RANKS[theirs] == 0
        assert ours == theirs or pure or RANKS[theirs] < RANKS[ours], f"{name} imports {imported}"


@pytest.mark.parametrize("name", FILES)
def test_no_private_modules_and_no_tensorflow_in_the_keras_part(name):
    for imported in imports(FILES[name]):
        private = imported.startswith(("tensorflow.python", "keras.src"))
        assert not private or name == REACHES_INTO_KERAS, f"{name} imports {imported}"
        if RANKS[group(name)] < KERAS_ONLY_BELOW and name != "iterand_tf.masks":
            assert not imported.startswith("tensorflow"), f"{name} imports {imported}"
        if name != "main":
            assert not imported.startswith("absl"), f"{name} imports {imported}"


def test_importing_the_library_leaves_the_rest_out():
    script = f"import sys, iterand_tf; print([name for name in {ABSENT_FROM_THE_LIBRARY} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [name for name in ast.literal_eval(printed) if name != "absl.flags"] == []


def _build_targets():
    targets = {}
    for node in ast.parse((ROOT / "BUILD").read_text()).body:
        arguments = {keyword.arg: keyword.value for keyword in node.value.keywords}
        if isinstance(arguments["srcs"], ast.List):
            (source,) = ast.literal_eval(arguments["srcs"])
            deps = ast.literal_eval(arguments["deps"]) if "deps" in arguments else []
            targets[ast.literal_eval(arguments["name"])] = (source, set(deps))
    return targets


def test_build_deps_are_the_imports():
    def target(name):
        return name.replace(".", "_")

    expected = {
        target(name): (
            str(file.relative_to(ROOT)),
            {f":{target(imported)}" for imported in (imports(file) & FILES.keys()) - {name}},
        )
        for name, file in FILES.items()
    }
    assert _build_targets() == expected


@pytest.mark.skipif(not shutil.which("bazel"), reason="bazel is not installed")
def test_bazel_resolves_the_graph(tmp_path):
    for file in ("BUILD", "WORKSPACE"):
        shutil.copy(ROOT / file, tmp_path)
    for source, _ in _build_targets().values():
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, tmp_path / source)
    bazel = ["bazel", "--batch", f"--output_user_root={tmp_path}/cache"]
    result = subprocess.run(
        [*bazel, "query", "deps(//:main)"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert {f"//:{name}" for name in FILES if "." not in name} <= set(result.stdout.split())


def test_the_version_is_that_of_the_changelog():
    from iterand_tf.version import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_requirements_pin_every_dependency_of_the_wheel():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    for line in lines:
        name, version = line.split("==")
        assert importlib.metadata.version(name) == version
