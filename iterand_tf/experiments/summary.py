"""Runs that differ in their seeds alone, taken together: mean and standard deviation, as tables."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence
from typing import Any

from iterand_tf.experiments.records import Run
from iterand_tf.layers.subnet_options import KERNEL_METHODS
from iterand_tf.text_table import markdown_table, text_table
from iterand_tf.training.config import option_fields

METHODS = {"dense": "dense", "edge_popup": "edge-popup", "iterand": "IteRand"}
DISTRIBUTIONS = {
    "kaiming_uniform": "KU",
    "signed_constant": "SC",
    "kaiming_normal": "KN",
    "uniform": "U",
}
# By field of result.json: the head of its column, and how a value is written.
COLUMNS = {
    "validation_accuracy": ("validation accuracy", ".4f"),
    "test_accuracy": ("test accuracy", ".4f"),
    "num_kept": ("kept weights", ",.0f"),
    "export_bytes": ("exported bytes", ",.0f"),
    "seconds": ("seconds", ",.0f"),
}
# Told by the label of the method, or not a difference between experiments.
_NOT_COLUMNS = ("method", "weight_distribution", "seed")


@dataclasses.dataclass(frozen=True)
class Group:
    """Finished runs of the same flags but for the seed.

    Args:
        method: the label of their method.
        varied: the value of each flag in which runs of one method differ.
        runs: of them, at least one.
    """

    method: str
    varied: dict[str, Any]
    runs: tuple[Run, ...]

    def label_without(self, *flags: str) -> str:
        """The method and what varies, in words, without some of the flags."""
        varied = [f"{name}={_short(value)}" for name, value in self.varied.items() if name not in flags]
        return ", ".join([self.method, *varied])

    def values(self, field: str) -> list[float]:
        """Of result.json, one for each run that has it."""
        found = (run.result.get(field) for run in self.runs)
        return [float(value) for value in found if value is not None]

    def exports(self) -> list[tuple[str, float, float]]:
        """Format, mean bytes and mean accuracy of each export; what rounds has an accuracy of its own."""
        flags = self.runs[0].flags
        first = str(flags["export_format"]).split(",")[0]
        exported = "best_test_accuracy" if flags["export_checkpoint"] == "best" else "test_accuracy"
        fields = {name for run in self.runs for name in run.result if name.endswith("export_bytes")}
        found = []
        for field in sorted(fields, reverse=True):
            export_format = field.removesuffix("export_bytes").removesuffix("_") or first
            # Of those seeds alone that were exported so.
            runs = dataclasses.replace(self, runs=tuple(run for run in self.runs if run.result.get(field) is not None))
            if runs.runs:
                written = export_format.removesuffix("_gzip")
                accuracies = runs.values(f"{written}_test_accuracy") or runs.values(exported)
                label = export_format.replace("_", " ")
                found.append((label, statistics.mean(runs.values(field)), statistics.mean(accuracies)))
        return found


def method_label(flags: dict[str, Any]) -> str:
    """What a run's method is called, with the distribution of its random weights.

    Example:

    >>> method_label({"method": "iterand", "weight_distribution": "signed_constant"})
    'IteRand SC'
    >>> method_label({"method": "dense", "weight_distribution": "kaiming_uniform"})
    'dense'
    """
    method, distribution = flags["method"], flags["weight_distribution"]
    name = METHODS.get(method, method.replace("_", " "))
    trained = method in ("dense", *KERNEL_METHODS)
    return name if trained else f"{name} {DISTRIBUTIONS.get(distribution, distribution)}"


def make_groups(runs: Sequence[Run]) -> list[Group]:
    """Puts finished runs that differ in their seeds alone together, in the order of their first ones."""
    compared = [
        field.name
        for fields in option_fields().values()
        for field in fields
        if field.metadata.get("binding", True) and field.name not in _NOT_COLUMNS
    ]
    finished = [run for run in runs if run.result]
    by_method: dict[str, list[Run]] = {}
    for run in finished:
        by_method.setdefault(method_label(run.flags), []).append(run)
    varied = [
        name
        for name in compared
        if any(len({run.flags[name] for run in of_method}) > 1 for of_method in by_method.values())
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
    """The mean, and the standard deviation of the sample where there are two values or more.

    Example:

    >>> mean_and_deviation([1, 3])
    (2, 1.4142135623730951)
    """
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def summary_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """A head and a row for each group; columns that would be empty are left out."""
    fields = [field for field in COLUMNS if any(group.values(field) for group in groups)]
    rows: list[tuple[str, ...]] = [
        ("method", *(groups[0].varied if groups else ()), "seeds", *(COLUMNS[field][0] for field in fields))
    ]
    for group in groups:
        seeds = ",".join(str(run.flags["seed"]) for run in group.runs)
        cells = (_cell(group.values(field), COLUMNS[field][1]) for field in fields)
        rows.append((group.method, *map(_short, group.varied.values()), seeds, *cells))
    return rows


def _short(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(values, form):
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:{form}}" if not deviation else f"{mean:{form}} ± {deviation:{form}}"


def as_text(groups: Sequence[Group]) -> str:
    """The table for a terminal."""
    return text_table(summary_rows(groups))


def as_markdown(groups: Sequence[Group]) -> str:
    """The table as Markdown."""
    return markdown_table(summary_rows(groups))


def as_csv(groups: Sequence[Group]) -> str:
    """The table for programs: means and standard deviations in columns of their own, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", *(groups[0].varied if groups else ()), "seeds"]
        + [name for field in COLUMNS for name in (field, f"{field}_deviation")]
    )
    for group in groups:
        cells: list[Any] = []
        for field in COLUMNS:
            values = group.values(field)
            cells += mean_and_deviation(values) if values else (None, None)
        writer.writerow([group.method, *group.varied.values(), len(group.runs), *cells])
    return text.getvalue()
