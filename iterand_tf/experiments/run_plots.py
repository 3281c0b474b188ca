"""Pictures of groups of runs: each answers one question."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from iterand_tf.experiments.figures import COLOURS, LINES, MARKERS, finished_png, new_axes
from iterand_tf.experiments.run_groups import Group, mean_and_deviation

SUBNETS = ("edge-popup KU", "edge-popup SC", "IteRand KU", "IteRand SC")
METHODS_IN_ORDER = ("dense", *SUBNETS, "magnitude pruning", "random pruning")
ACCURACY = "accuracy on the test images (fraction)"
VALIDATION = "accuracy on the validation images (fraction)"


@dataclasses.dataclass(frozen=True)
class Plot:
    """A finished picture, and the name of its file without the ending."""

    name: str
    title: str
    png: bytes


def make_plots(groups: Sequence[Group]) -> list[Plot]:
    """All pictures that these runs have the numbers for."""
    drawn = [
        _by_width(groups),
        _by_kept(groups),
        _by_bytes(groups),
        _over_epochs(groups, "val_accuracy", VALIDATION, "training_curves", "Validation accuracy in training"),
        _by_rate(groups),
        _over_epochs(
            groups,
            "mask_flip_ratio",
            "mask entries changed in the epoch (fraction)",
            "mask_flip_ratio",
            "How much of the masks changes from epoch to epoch",
            log=True,
        ),
        _layers(groups),
    ]
    return [plot for plot in drawn if plot is not None]


@dataclasses.dataclass(frozen=True)
class _Series:
    label: str
    groups: tuple[Group, ...]
    style: dict[str, Any]


def _series(groups: Iterable[Group], *without: str) -> list[_Series]:
    """Lines, each of groups that differ in the flags `without` alone.

    The colour says the method, and the style of the line what else varies. If there is one method only, the colour says
    what varies.
    """
    members: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        label = group.label_without(*without)
        members.setdefault((group.method, label), []).append(group)
    methods = dict.fromkeys(method for method, _ in members)
    # A method has the same colour in all pictures.
    methods_with_colours = list(dict.fromkeys([*METHODS_IN_ORDER, *methods]))
    one_method = len(methods) == 1 and len(members) > 1
    found = []
    variants: dict[str, int] = {}
    for (method, label), each in members.items():
        variant = variants[method] = variants.get(method, -1) + 1
        colour = variant if one_method else methods_with_colours.index(method)
        style = {
            "color": COLOURS[colour % len(COLOURS)],
            "marker": MARKERS[colour % len(MARKERS)],
            "linestyle": LINES[variant % len(LINES)],
            "markersize": 4.5,
            "linewidth": 1.5,
        }
        found.append(_Series(label, tuple(each), style))
    return found


def _errorbars(axes, series, place: Callable[[Group], float | None], field):
    """Draws means over seeds with standard deviations. Returns how many places on the x axis they take."""
    places = set()
    for each in series:
        placed = [(place(group), group.values(field)) for group in each.groups]
        points = sorted((x, *mean_and_deviation(values)) for x, values in placed if x is not None and values)
        if points:
            xs, ys, deviations = zip(*points, strict=True)
            errors = [deviation or 0.0 for deviation in deviations]
            axes.errorbar(xs, ys, errors, label=each.label, capsize=2.5, **each.style)
            places |= set(xs)
    return len(places)


def _finish(name, title, panels):
    return Plot(name, title, finished_png(title, panels))


def _by_width(groups):
    if len({group.flags["width_factor"] for group in groups}) < 2:
        return None
    (axes,) = new_axes("width factor (1 = the network's own widths)", ACCURACY)
    _errorbars(axes, _series(groups, "width_factor"), lambda group: group.flags["width_factor"], "test_accuracy")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return _finish("accuracy_by_width", "Accuracy against width; bars: standard deviation over seeds", [axes])


def _by_kept(groups):
    (axes,) = new_axes("kept weights (number, all layers)", ACCURACY)
    series = _series(groups, "width_factor", "sparsity")
    if _errorbars(axes, series, lambda group: next(iter(group.values("num_kept")), None), "test_accuracy") < 2:
        return None
    axes.set_xscale("log")
    return _finish("accuracy_by_kept_weights", "Accuracy against kept weights", [axes])


def _by_bytes(groups):
    """A colour for each group and a marker for each format. The accuracy is that of the exported network."""
    (axes,) = new_axes("size of the export (kB)", ACCURACY)
    formats: dict[str, str] = {}
    sizes = set()
    for each in _series(groups, "width_factor", "sparsity"):
        color = each.style["color"]
        points = [point for group in each.groups for point in group.exports()]
        for export_format, size, accuracy in points:
            marker = formats.setdefault(export_format, MARKERS[len(formats) % len(MARKERS)])
            axes.plot(size / 1000, accuracy, marker, color=color, markersize=6)
            sizes.add(size)
        if points:
            axes.plot([], [], "-", color=color, linewidth=4, label=each.label)
    if len(sizes) < 2:
        return None
    for export_format, marker in formats.items():
        axes.plot([], [], marker, color="#555555", label=f"{export_format} export")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    return _finish("accuracy_by_bytes", "Accuracy against the size of the exported files", [axes])


def _over_epochs(groups, column, y_label, name, title, log=False):
    """A panel for each width: the mean over seeds is a line, the lowest and the highest seed bound a band."""
    groups = [group for group in groups if any(column in row for run in group.runs for row in run.epochs)]
    if not groups:
        return None
    widths = sorted({group.flags["width_factor"] for group in groups})
    panels = new_axes("epoch (passes over the training images)", y_label, len(widths))
    # Colours and the legend are those of all panels together.
    for each in _series(groups, "width_factor"):
        for group in each.groups:
            _draw_curve(panels[widths.index(group.flags["width_factor"])], group, each, column)
    for axes, width in zip(panels, widths, strict=True):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_yscale("log" if log else "linear")
        if len(widths) > 1:
            axes.set_title(f"width factor {width:g}", fontsize=9)
    if any(len(group.runs) > 1 for group in groups):
        title += "; band: range of the seeds"
    return _finish(name, title, panels)


def _draw_curve(axes, group, series, column):
    found = [{row["epoch"]: row[column] for row in run.epochs if column in row} for run in group.runs]
    by_epoch = [values for values in found if values]
    # Means and bands need all seeds: an epoch in which one of them was interrupted may have no value.
    epochs = sorted(set.intersection(*map(set, by_epoch)))
    values = np.array([[each[epoch] for epoch in epochs] for each in by_epoch])
    style = series.style | {"markevery": max(1, len(epochs) // 8)}
    axes.plot(epochs, values.mean(axis=0), label=series.label, **style)
    if len(by_epoch) > 1:
        band = {"color": series.style["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), **band)


def _by_rate(groups):
    """Rates have equal distances, because 0 has no place on a logarithmic axis."""
    rates = sorted({group.varied["rerandomization_rate"] for group in groups if "rerandomization_rate" in group.varied})
    if len(rates) < 2:
        return None
    (axes,) = new_axes("re-randomization rate r (fraction of pruned weights; 0 = edge-popup)", VALIDATION)
    iterand = [group for group in groups if group.flags["method"] == "iterand"]
    _errorbars(
        axes,
        _series(iterand, "rerandomization_rate"),
        lambda group: rates.index(group.varied["rerandomization_rate"]),
        "validation_accuracy",
    )
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    return _finish("accuracy_by_rate", "Accuracy against the re-randomization rate, after the last epoch", [axes])


def _layers(groups):
    (axes,) = new_axes("", "weights removed (fraction of the layer)")
    names: dict[str, int] = {}
    drawn = [each for each in _series(groups, "width_factor") if any(run.layers for run in each.groups[0].runs)]
    for each in drawn:
        layers = next(run.layers for run in each.groups[0].runs if run.layers)
        places = [names.setdefault(layer["name"], len(names)) for layer in layers]
        sparsities = [1 - layer["num_kept"] / layer["num_weights"] for layer in layers]
        axes.plot(places, sparsities, label=each.label, **each.style)
    if not drawn:
        return None
    axes.set_xlabel("layer, from the input to the output")
    axes.set_xticks(range(len(names)), list(names), rotation=60, ha="right", fontsize=7)
    axes.set_ylim(-0.02, 1.02)
    return _finish("sparsity_by_layer", "Weights removed in each layer", [axes])
