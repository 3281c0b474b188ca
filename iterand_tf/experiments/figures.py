"""What all pictures have in common: size, colours, axes, title, legend and file."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any kind of colour vision tell apart. Their yellow is left out: it is too
# pale for a line on white. Markers and line styles say the same once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
WIDTH, PANEL_WIDTH, HEIGHT, DOTS_PER_INCH = 7.2, 1.8, 4.0, 100


def new_axes(x_label: str, y_label: str, panels: int = 1) -> list[Axes]:
    """An empty picture: panels side by side, with the names of their axes."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure((WIDTH + PANEL_WIDTH * (panels - 1), HEIGHT), layout="constrained")
        row = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    if panels > 1:
        figure.supxlabel(x_label, fontsize=9)
    else:
        row[0].set_xlabel(x_label)
    for axes in row:
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel(y_label)
    return list(row)


def finished_png(title: str, panels: Sequence[Axes]) -> bytes:
    """The picture with its title, and with one legend for all panels to their right."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=8)
    return save_png(figure)


def save_png(figure: Figure) -> bytes:
    """The figure as a PNG file that is the same each time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()
