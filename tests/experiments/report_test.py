"""Tables and pictures of made-up runs, and the page in a browser."""

import csv
import dataclasses
import io
import re
import shutil
import subprocess

import pytest
from made_up_runs import METHODS, WEIGHTS, exported, figure1, figure2, made_up_run
from PIL import Image

from iterand_tf.experiments import figures
from iterand_tf.experiments.finished_runs import network_flags, read_flags
from iterand_tf.experiments.group_tables import csv_text, table_rows
from iterand_tf.experiments.report_files import page
from iterand_tf.experiments.run_groups import make_groups, method_label, short
from iterand_tf.experiments.run_plots import make_plots
from iterand_tf.text_table import markdown_table, text_table

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def with_accuracies(*accuracies):
    """Runs of one network that differ in seed and accuracy."""
    runs = [made_up_run("sc_iterand", 0.25, seed) for seed in range(len(accuracies))]
    return [
        dataclasses.replace(run, result=run.result | {"test_accuracy": accuracy})
        for run, accuracy in zip(runs, accuracies, strict=True)
    ]


def test_seeds_are_one_row_with_mean_and_deviation_of_the_sample():
    (group,) = make_groups(with_accuracies(0.5, 0.6, 0.7))
    (row,) = csv.DictReader(io.StringIO(csv_text([group])))
    assert float(row["test_accuracy"]) == pytest.approx(0.6)
    assert float(row["test_accuracy_deviation"]) == pytest.approx(0.1)
    assert row["seeds"] == "3"
    assert "0.6000 ± 0.1000" in text_table(table_rows([group]))
    assert "| IteRand SC | 0,1,2 |" in markdown_table(table_rows([group]))


def test_markdown_aligns_numbers_to_the_right():
    rows = [("method", "accuracy"), ("dense", "0.9")]
    assert markdown_table(rows) == "| method | accuracy |\n|---|--:|\n| dense | 0.9 |"


@pytest.mark.parametrize(
    ("method", "distribution", "label"),
    [("iterand", "signed_constant", "IteRand SC"), ("magnitude_pruning", "kaiming_uniform", "magnitude pruning")],
)
def test_a_label_names_the_distribution_of_frozen_weights(method, distribution, label):
    assert method_label({"method": method, "weight_distribution": distribution}) == label


def test_values_are_short():
    assert (short(1.0), short("conv6")) == ("1", "conv6")


def test_a_flagfile_is_read_as_values():
    flags = read_flags("--sparsity=0.7\n--batch_normalization\n# a remark\n")
    assert (flags["sparsity"], flags["batch_normalization"], flags["seed"]) == (0.7, True, 0)


def test_a_network_does_not_depend_on_directories():
    assert network_flags()["sparsity"] == "supermask"
    assert "model_dir" not in network_flags()


def test_a_single_seed_has_no_deviation():
    (group,) = make_groups(with_accuracies(0.5))
    assert "0.5000" in text_table(table_rows([group]))
    assert "±" not in text_table(table_rows([group]))


def test_a_flag_is_a_column_where_runs_of_one_method_differ_in_it():
    groups = make_groups(figure2())
    assert len(groups) == len(METHODS) * len(WEIGHTS)
    assert {tuple(group.varied) for group in groups} == {("width_factor",)}
    assert groups[0].label_without() == "dense, width_factor=0.25"


def test_runs_that_are_not_finished_are_left_out():
    run = dataclasses.replace(made_up_run("dense", 1.0, 1), result={})
    assert make_groups([run]) == []


def test_an_export_that_rounds_has_an_accuracy_of_its_own():
    sizes = {"tflite_export_bytes": 100, "tflite_gzip_export_bytes": 90}
    run = exported(made_up_run("sc_iterand", 1.0, 1), **sizes, tflite_test_accuracy=0.25)
    (group,) = make_groups([run])
    packed = ("packed", run.result["export_bytes"], run.result["best_test_accuracy"])
    assert group.exports() == [("tflite gzip", 90, 0.25), ("tflite", 100, 0.25), packed]


OF_ONE = {"training_curves", "mask_flip_ratio", "sparsity_by_layer"}
# By what is drawn: a function that gives the runs, and the pictures.
PICTURES = {
    "figure2": (
        figure2,
        {"accuracy_by_width", "accuracy_by_kept_weights", "accuracy_by_bytes"} | OF_ONE,
    ),
    "figure1": (figure1, {"accuracy_by_rate"} | OF_ONE),
    "one_run": (
        lambda: [made_up_run("sc_iterand", 1.0, 1)],
        {"training_curves", "mask_flip_ratio", "sparsity_by_layer"},
    ),
    "dense": (lambda: [made_up_run("dense", 1.0, 1)], {"training_curves"}),
    "bytes": (
        lambda: [
            exported(made_up_run("sc_iterand", 1.0, 1), dense_export_bytes=9_000_000, dense_gzip_export_bytes=700_000)
        ],
        {"accuracy_by_bytes"} | OF_ONE,
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_is_drawn_where_there_is_something_to_compare(name):
    runs, expected = PICTURES[name]
    drawn = make_plots(make_groups(runs()))
    assert {plot.name for plot in drawn} == expected
    for plot in drawn:
        picture = Image.open(io.BytesIO(plot.png)).convert("RGB")
        assert len(picture.getcolors(maxcolors=1 << 24)) > 20


@pytest.mark.parametrize("name", PICTURES)
def test_title_and_legend_do_not_overlap(name, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_png", lambda figure: drawn.append(figure) or b"")
    make_plots(make_groups(PICTURES[name][0]()))
    for figure in drawn:
        figure.canvas.draw()
        (title,) = (text for text in figure.texts if text.get_text() == figure.get_suptitle())
        (legend,) = figure.legends
        assert not title.get_window_extent().overlaps(legend.get_window_extent())
        assert figure.bbox.x1 > title.get_window_extent().x1


def test_a_curve_has_its_values_at_their_epochs(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_png", lambda figure: drawn.append(figure) or b"")
    runs = [made_up_run("sc_iterand", 1.0, seed) for seed in (1, 2)]
    # Of an epoch that was interrupted.
    del runs[0].epochs[2]["mask_flip_ratio"]
    make_plots(make_groups(runs))
    lines = {figure.get_suptitle().split(";")[0]: figure.axes[0].lines[0] for figure in drawn}
    line = lines["How much of the masks changes from epoch to epoch"]
    epochs = [row["epoch"] for row in runs[0].epochs]
    assert list(line.get_xdata()) == epochs[:2] + epochs[3:]
    pairs = zip(*(run.epochs for run in runs), strict=True)
    both = [[row["mask_flip_ratio"] for row in pair] for pair in pairs if "mask_flip_ratio" in pair[0]]
    assert list(line.get_ydata()) == pytest.approx([sum(ratios) / 2 for ratios in both])


def test_pictures_are_the_same_each_time():
    groups = make_groups(figure1())
    assert make_plots(groups) == make_plots(groups)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_shows_the_page_without_an_error(tmp_path):
    groups = make_groups(figure2())
    drawn = make_plots(groups)
    (tmp_path / "report.html").write_text(page("A & B", table_rows(groups), ["not finished: <one>"], drawn))
    # A script of the test's own, behind the page, says what the browser has made of it.
    script = (
        "<script>window.onload = () => { document.body.dataset.widths = "
        "Array.from(document.images, image => image.naturalWidth).join(); "
        "document.body.dataset.rows = document.querySelectorAll('tr').length }</script>"
    )
    text = (tmp_path / "report.html").read_text()
    (tmp_path / "tested.html").write_text(text.replace("</head>", f"{script}</head>"))
    browser = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    arguments = [
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        "--dump-dom",
        f"file://{tmp_path}/tested.html",
    ]
    result = subprocess.run([*browser, *arguments], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in result.stderr
    (widths,) = re.findall(r'data-widths="([\d,]*)"', result.stdout)
    assert len(widths.split(",")) == len(drawn)
    assert all(int(width) > 300 for width in widths.split(","))
    assert f'data-rows="{len(groups) + 1}"' in result.stdout
    assert "<title>A &amp; B</title>" in result.stdout
    assert "not finished: &lt;one&gt;" in result.stdout
    # Nothing is fetched from elsewhere.
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
