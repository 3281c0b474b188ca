"""The table of layers in docs/design.md: imports point down only, and BUILD is the graph of packages."""

import ast
import graphlib
import importlib.metadata
import re
import shutil
import subprocess
import sys

import pytest
from build_graph import BUILD, FILES, ROOT, Target, imports, read_targets, what_to_write
from lowest_versions import dependencies
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# A module may import those of lower ranks, and of its own group.
RANKS = {
    "iterand_tf.errors": 0,
    "iterand_tf.checks": 0,
    "iterand_tf.files": 0,
    "iterand_tf.interruption": 0,
    "iterand_tf.startup": 0,
    "iterand_tf.text_table": 0,
    "iterand_tf.version": 0,
    "iterand_tf.seeds": 1,
    "iterand_tf.masks": 1,
    "iterand_tf.distributions": 1,
    "iterand_tf.rerandomization": 1,
    "iterand_tf.methods": 2,
    "iterand_tf.layers": 3,
    "iterand_tf.callbacks": 4,
    "iterand_tf.cloning": 4,
    "iterand_tf.models": 4,
    "iterand_tf.optimization": 4,
    "iterand_tf.sparsity_report": 4,
    "iterand_tf.subclassed": 5,
    "iterand_tf.conversion_plan": 6,
    "iterand_tf.conversion": 7,
    "iterand_tf.data": 8,
    "iterand_tf.strategies": 9,
    "iterand_tf.training": 10,
    "export": 10,
    "iterand_tf": 11,
    "iterand_tf.experiments": 12,
    "iterand_tf.cli": 13,
    "iterand_tf.__main__": 14,
    "main": 14,
    "tools": 15,
}
REACHES_INTO_KERAS = "iterand_tf.strategies.multi_worker_fit"
FIRST_WITH_TENSORFLOW = RANKS["iterand_tf.data"]
ABSENT_FROM_THE_LIBRARY = (
    "export",
    "iterand_tf.data",
    "iterand_tf.experiments",
    "iterand_tf.training",
    "keras_cv",
    "optuna",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
)


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
        assert ours == theirs or RANKS[theirs] < RANKS[ours], f"{name} imports {imported}"


@pytest.mark.parametrize("name", FILES)
def test_no_private_modules_and_no_tensorflow_in_the_keras_part(name):
    for imported in imports(FILES[name]):
        private = imported.startswith(("tensorflow.python", "keras.src"))
        assert not private or name == REACHES_INTO_KERAS, f"{name} imports {imported}"
        # masks.selection alone may wrap its selection in tf.function.
        if RANKS[group(name)] < FIRST_WITH_TENSORFLOW and name != "iterand_tf.masks.selection":
            assert not imported.startswith("tensorflow"), f"{name} imports {imported}"
        if name != "iterand_tf.cli":
            assert not imported.startswith("absl"), f"{name} imports {imported}"


def test_importing_the_library_leaves_the_rest_out():
    script = f"import sys, iterand_tf; print([name for name in {ABSENT_FROM_THE_LIBRARY} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert ast.literal_eval(printed) == []


def test_the_design_has_the_same_table():
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE)
    stated = {
        (
            name.removeprefix("iterand_tf/").removesuffix("/").removesuffix(".py").replace("__init__", "iterand_tf"),
            int(rank),
        )
        for rank, modules in rows
        for name in re.findall("`(.*?)`", modules)
    }
    assert stated == {(name.removeprefix("iterand_tf."), rank) for name, rank in RANKS.items()}


@pytest.fixture(scope="module")
def targets():
    """The targets of BUILD by name."""
    return read_targets(BUILD.read_text())


def test_build_has_the_imports(targets):
    to_write = what_to_write(targets)
    assert not to_write, "write into BUILD: " + "\n".join(to_write)
    # An error names the targets of a cycle.
    graphlib.TopologicalSorter({name: target.deps for name, target in targets.items()}).prepare()


def test_what_build_lacks_is_named():
    files, masks = ROOT / "iterand_tf" / "files.py", frozenset(ROOT.glob("iterand_tf/masks/*.py"))
    everything = frozenset(FILES.values())
    assert what_to_write({"all": Target(everything, frozenset())}) == []
    assert what_to_write({"rest": Target(everything - {files}, frozenset())}) == [
        '"iterand_tf/files.py" into the srcs of one target'
    ]
    twice = {"all": Target(everything, frozenset()), "again": Target(frozenset([files]), frozenset())}
    assert what_to_write(twice)[0] == '"iterand_tf/files.py" into the srcs of one target, not of all and again'
    parts = {"rest": Target(everything - masks, frozenset(["masks"])), "masks": Target(masks, frozenset(["main"]))}
    assert what_to_write(parts) == ['into the target "masks":\n    deps = [":rest"],']


@pytest.mark.skipif(not shutil.which("bazel"), reason="bazel is not installed")
def test_bazel_resolves_the_graph(tmp_path, targets):
    for file in ("BUILD", "WORKSPACE"):
        shutil.copy(ROOT / file, tmp_path)
    for source in [*FILES.values(), *ROOT.glob("*/py.typed"), *ROOT.glob("flags/*.flags"), *ROOT.glob("tests/**/*.py")]:
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    bazel = ["bazel", "--batch", f"--output_user_root={tmp_path}/cache"]
    result = subprocess.run(
        [*bazel, "query", "deps(//:main)"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert {f"//:{name}" for name in targets.keys() - {"tests", "tools"}} <= set(result.stdout.split())


def test_the_version_is_that_of_the_changelog():
    from iterand_tf.version import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def pins():
    """The version of each line of requirements.txt by the name of its package."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*,]+", str(requirement.specifier)) for requirement in requirements)
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}


def test_requirements_pin_every_dependency_of_the_wheel():
    pinned = pins()
    for requirement in map(Requirement, dependencies()):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} of pyproject.toml is not pinned"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} of pyproject.toml refuses {pinned[name]}"


def test_what_is_installed_is_what_requirements_pin():
    pinned = pins()
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned
