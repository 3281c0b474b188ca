"""Runs that differ in their seeds alone, taken together."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from iterand_tf.experiments.finished_runs import Run, network_flags

# Methods whose label also names the distribution of the frozen weights.
_SUBNET_METHODS = {"edge_popup": "edge-popup", "iterand": "IteRand"}
_DISTRIBUTIONS = {"kaiming_uniform": "KU", "signed_constant": "SC", "kaiming_normal": "KN", "uniform": "U"}
# The label of the method tells the first two. The seed is no difference between experiments.
_NOT_COMPARED = ("method", "weight_distribution", "seed")


@dataclasses.dataclass(frozen=True)
class Group:
    """Finished runs that differ in their seeds alone; `varied` has the flags in which runs of one method differ."""

    method: str
    varied: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def flags(self) -> dict[str, Any]:
        """The flags of the first run; those of the others differ in the seed."""
        return self.runs[0].flags

    def label_without(self, *flags: str) -> str:
        """The method and what varies, in words, without some of the flags."""
        varied = [f"{name}={short(value)}" for name, value in self.varied.items() if name not in flags]
        return ", ".join([self.method, *varied])

    def values(self, field: str) -> list[float]:
        """A field of result.json: one value for each run that has it."""
        found = (run.result.get(field) for run in self.runs)
        return [float(value) for value in found if value is not None]

    def exports(self) -> list[tuple[str, float, float]]:
        """Format, mean bytes and mean accuracy of each export. A format that rounds has an accuracy of its own."""
        first = str(self.flags["export_format"]).split(",")[0]
        exported = "best_test_accuracy" if self.flags["export_checkpoint"] == "best" else "test_accuracy"
        fields = {name for run in self.runs for name in run.result if name.endswith("export_bytes")}
        found = []
        for field in sorted(fields, reverse=True):
            export_format = field.removesuffix("export_bytes").removesuffix("_") or first
            # The means are over the seeds that were exported in this format.
            runs = dataclasses.replace(self, runs=tuple(run for run in self.runs if run.result.get(field) is not None))
            if runs.runs:
                written = export_format.removesuffix("_gzip")
                accuracies = runs.values(f"{written}_test_accuracy") or runs.values(exported)
                label = export_format.replace("_", " ")
                found.append((label, statistics.mean(runs.values(field)), statistics.mean(accuracies)))
        return found


def method_label(flags: dict[str, Any]) -> str:
    """What a run's method is called, with the distribution of its frozen weights: "IteRand SC"."""
    method, distribution = flags["method"], flags["weight_distribution"]
    if method not in _SUBNET_METHODS:
        return method.replace("_", " ")
    return f"{_SUBNET_METHODS[method]} {_DISTRIBUTIONS.get(distribution, distribution)}"


def make_groups(runs: Sequence[Run]) -> list[Group]:
    """Puts finished runs that differ in their seeds alone together, in the order of their first ones."""
    finished = [run for run in runs if run.result]
    by_method: dict[str, list[Run]] = {}
    for run in finished:
        by_method.setdefault(method_label(run.flags), []).append(run)
    varied = [
        name
        for name in network_flags()
        if name not in _NOT_COMPARED
        and any(len({run.flags[name] for run in of_method}) > 1 for of_method in by_method.values())
    ]
    groups: dict[tuple, list[Run]] = {}
    for run in finished:
        key = (method_label(run.flags), *(run.flags[name] for name in varied))
        groups.setdefault(key, []).append(run)
    return [
        Group(method, dict(zip(varied, values, strict=True)), tuple(members))
        for (method, *values), members in groups.items()
    ]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of the sample if there are two values or more."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def short(value: Any) -> str:
    """A flag's value as tables and legends write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
