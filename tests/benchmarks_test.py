"""Benchmarks of the suite give a first case, but for those that need data or train."""

import argparse
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
# They need TFDS data or train, or start many processes.
LEFT_OUT = {"pipelines", "checkpoints", "startup", "defaults"}
TRIED = {"masks", "steps", "memory", "rerandomization", "evaluation", "exports", "serving"}


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suite

    yield suite
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & sys.modules.keys():
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRIED))
def test_gives_a_first_case(name, suite):
    options = argparse.Namespace(quick=True, data_dir="", model_dirs="", torch_python="")
    case = next(iter(suite.BENCHMARKS[name](options)))
    # Memory has no turns to take.
    assert case.record()["values" if name == "memory" else "ratios"]


def test_none_is_forgotten(suite):
    assert set(suite.BENCHMARKS) == TRIED | LEFT_OUT
