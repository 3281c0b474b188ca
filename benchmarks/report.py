"""Writes docs/performance.md from what `benchmarks/suite.py` measured.

    python benchmarks/report.py docs/performance/*.json > docs/performance.md

The text of docs/performance/explained.md follows: why a target is not met, and what else is worth knowing.
"""

import argparse
import json
import pathlib

import environment
import sides
import suite

HEAD = """# Performance

Written by `make performance-page` from {files}. Each figure is a ratio of the seconds of two sides
that took turns in one process: the median of the rounds, and the quartiles in brackets. Machines differ by four times
in speed and are shared; ratios are what to hold on to. `make bench` measures all of it again, `make bench-quick` a part
in a few minutes.
"""


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, each)) + " |" for each in lines)


def columns(cases, key):
    """Names in the order in which cases bring them."""
    return list(dict.fromkeys(name for case in cases for name in case[key]))


def section(name, run):
    cases = run["cases"]
    blocks = [f"## {name.capitalize()}", suite.BENCHMARKS[name].__globals__["__doc__"].strip()]
    how = "a quick run" if run["quick"] else "a run"
    blocks.append(
        f"Commit {run['commit']}, {run['date']}, {how} of {run['seconds']} s at a load of {run['load_before']:.1f}."
    )
    rows = []
    for case in cases:
        for ratio, record in case["ratios"].items():
            low, median, high = (f"{value:.3g}" if value >= 2 else f"{value:.3f}" for value in record["quartiles"])
            target = f"{record['target']}: {'met' if record['met'] else '**not met**'}" if "target" in record else ""
            rows.append([case["case"], ratio, f"{median} [{low} to {high}]", target])
    if rows:
        blocks.append(table(["case", "ratio", "measured", "target"], rows))
    names = columns(cases, "seconds")
    durations = [
        [
            case["case"],
            *(sides.duration_text(case["seconds"][name][1]) if name in case["seconds"] else "" for name in names),
        ]
        for case in cases
    ]
    if names:
        blocks.append(table(["case, medians", *names], durations))
    names = columns(cases, "values")
    if names:
        valued = [case for case in cases if case["values"]]
        figures = [
            [each["case"], *(sides.value_text(each["values"].get(name, "")) for name in names)] for each in valued
        ]
        blocks.append(table(["case", *names], figures))
    return "\n\n".join(blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    files = parser.parse_args().files
    blocks = [HEAD.format(files=", ".join(f"[{file.name}](performance/{file.name})" for file in files)).strip()]
    for file in files:
        record = json.loads(file.read_text())
        machine, versions = record["machine"], record["versions"]
        about = f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['instruction_sets'])}; "
        blocks.append("Machine: " + about + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
        blocks += [section(name, run) for name, run in record["benchmarks"].items()]
    explained = pathlib.Path(environment.ROOT, "docs", "performance", "explained.md")
    blocks.append(explained.read_text().strip())
    print("\n\n".join(blocks))


if __name__ == "__main__":
    main()
