"""Tables of groups of runs: a row a group, mean and standard deviation over its seeds."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from iterand_tf.experiments.run_groups import Group, mean_and_deviation, short

# By field of result.json: the head of its column, and how a value is written.
COLUMNS = {
    "validation_accuracy": ("validation accuracy", ".4f"),
    "test_accuracy": ("test accuracy", ".4f"),
    "num_kept": ("kept weights", ",.0f"),
    "export_bytes": ("exported bytes", ",.0f"),
    "seconds": ("seconds", ",.0f"),
}


def table_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """For people: a head and a row for each group. Columns that would be empty are left out."""
    fields = [field for field in COLUMNS if any(group.values(field) for group in groups)]
    rows: list[tuple[str, ...]] = [
        ("method", *(groups[0].varied if groups else ()), "seeds", *(COLUMNS[field][0] for field in fields))
    ]
    for group in groups:
        seeds = ",".join(str(run.flags["seed"]) for run in group.runs)
        cells = (_cell(group.values(field), COLUMNS[field][1]) for field in fields)
        rows.append((group.method, *map(short, group.varied.values()), seeds, *cells))
    return rows


def _cell(values, form):
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:{form}}" if not deviation else f"{mean:{form}} ± {deviation:{form}}"


def csv_text(groups: Sequence[Group]) -> str:
    """For programs: means and standard deviations in columns of their own, unrounded."""
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
