"""Every benchmark of the suite gives a first case."""

import argparse
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
# They need TFDS data or train; `startup` starts main.py a dozen times.
LEFT_OUT = {"pipelines", "checkpoints", "startup"}


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suite

    yield suite
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & sys.modules.keys():
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masks", "steps", "rerandomization", "evaluation", "exports", "serving"])
def test_gives_a_first_case(name, suite):
    case = next(iter(suite.BENCHMARKS[name](argparse.Namespace(quick=True, data_dir="", model_dirs=""))))
    assert case.record()["ratios"]
    assert set(suite.BENCHMARKS) == LEFT_OUT | {"masks", "steps", "rerandomization", "evaluation", "exports", "serving"}
