"""Writes docs/performance.md from what `benchmarks/suite.py` measured.

    python benchmarks/report.py docs/performance/*.json > docs/performance.md

It also draws FILE_masks.png beside each FILE.json. The text of docs/performance/explained.md follows: why a target is
not met, and what else is worth knowing.
"""

import argparse
import inspect
import json
import pathlib

import environment
import sides
import suite

from iterand_tf.experiments.figures import COLOURS, MARKERS, finished_png, new_axes
from iterand_tf.text_table import markdown_table

HEAD = """# Performance

Written by `make performance-page` from {files}. Most figures are ratios of the seconds of two sides
that took turns in one process: the median of the rounds, and the quartiles in brackets. Machines differ by four times
in speed and are shared; ratios are what to hold on to. `make bench` measures it again, with
`BENCH_FLAGS="--data_dir=TFDS_ROOT --model_dirs=RUN,RUN --torch_python=PYTHON"` also what needs data, finished runs or
torch; `make bench-quick` a part in a few minutes.
"""


def columns(cases, key):
    """Names in the order in which cases bring them."""
    return list(dict.fromkeys(name for case in cases for name in case[key]))


def draw_growth(cases, path):
    """Seconds against the number of normal scores, a line for each side of the masks."""
    (axes,) = new_axes("scores (number, normally distributed)", "time (ms)")
    normal = {
        int(case["case"].split()[0].replace(",", "")): case
        for case in cases
        if case["case"][0].isdigit() and case["case"].endswith(" normal")
    }
    for side, colour, marker in zip(columns(normal.values(), "seconds"), COLOURS, MARKERS, strict=False):
        milliseconds = [1e3 * case["seconds"][side][1] for case in normal.values()]
        axes.plot(list(normal), milliseconds, marker=marker, color=colour, label=side)
    axes.set_xscale("log")
    axes.set_yscale("log")
    path.write_bytes(finished_png("One mask against sorting and selecting, medians", [axes]))


def section(name, run):
    cases = run["cases"]
    blocks = [f"## {name.capitalize()}", inspect.getmodule(suite.BENCHMARKS[name]).__doc__.strip()]
    how = "a quick run" if run["quick"] else "a run"
    blocks.append(
        f"Commit {run['commit']}, {run['date']}, {how} of {run['seconds']} s at a load of {run['load_before']:.1f}; "
        + ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        + "."
    )
    rows = []
    for case in cases:
        for ratio, record in case["ratios"].items():
            target = f"{record['target']}: {'met' if record['met'] else '**not met**'}" if "target" in record else ""
            rows.append([case["case"], ratio, sides.quartiles_text(record["quartiles"]), target])
    if rows:
        blocks.append(markdown_table([["case", "ratio", "measured", "target"], *rows]))
    names = columns(cases, "seconds")
    durations = [
        [
            case["case"],
            *(sides.duration_text(case["seconds"][name][1]) if name in case["seconds"] else "" for name in names),
        ]
        for case in cases
    ]
    if names:
        blocks.append(markdown_table([["case, medians", *names], *durations]))
    names = columns(cases, "values")
    if names:
        valued = [case for case in cases if case["values"]]
        figures = [
            [each["case"], *(sides.value_text(each["values"].get(name, "")) for name in names)] for each in valued
        ]
        blocks.append(markdown_table([["case", *names], *figures]))
    return "\n\n".join(blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    files = parser.parse_args().files
    blocks = [HEAD.format(files=", ".join(f"[{file.name}](performance/{file.name})" for file in files)).strip()]
    for file in files:
        record = json.loads(file.read_text())
        machine = record["machine"]
        sets = ", ".join(machine["instruction_sets"])
        blocks.append(f"Machine: {machine['processor']}, {machine['cores']} cores, {sets}.")
        for name, run in record["benchmarks"].items():
            blocks.append(section(name, run))
            if name == "masks":
                picture = file.with_name(f"{file.stem}_masks.png")
                draw_growth(run["cases"], picture)
                blocks.append(f"![Time of a mask against the number of scores](performance/{picture.name})")
    explained = pathlib.Path(environment.ROOT, "docs", "performance", "explained.md")
    blocks.append(explained.read_text().strip())
    print("\n\n".join(blocks))


if __name__ == "__main__":
    main()
