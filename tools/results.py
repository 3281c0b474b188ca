"""docs/results.md: what finished runs reached, written from one JSON file a run.

    python -m tools.results collect MODEL_DIR [MODEL_DIR ...]
    python -m tools.results write

collect puts finished runs into docs/results/NAME.json. The row of docs/results/rows.toml with the run's flags has the
NAME, unless --name is given. write makes docs/results.md and its pictures from rows.toml and those files. A row without
a file says that it was never run. Start both in the root of the repository.
"""

import argparse
import dataclasses
import gzip
import pathlib
import sys
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from iterand_tf.errors import DataError, UserError
from iterand_tf.experiments.finished_runs import Run, find_runs, network_flags, read_flags
from iterand_tf.experiments.group_tables import COLUMNS, table_rows
from iterand_tf.experiments.run_groups import make_groups, method_label
from iterand_tf.experiments.run_plots import make_plots
from iterand_tf.files import write_atomically
from iterand_tf.text_table import markdown_table
from tools.records import Record, this_commit, this_hardware

DOCS = pathlib.Path("docs")
NOT_RUN = "not run"
DEFAULT_COLUMNS = ("validation_accuracy", "test_accuracy", "seconds")


@dataclasses.dataclass(frozen=True)
class Row:
    """One run that docs/results.md has, or should have.

    Args:
        name: the name of its JSON file.
        flagfile: its flagfile in flags/, without the ending.
        flags: more flags, as on the command line.
        seed: the seed of the run.
        beside: what others reached with the same settings, and who.
    """

    name: str
    flagfile: str
    flags: str
    seed: int
    beside: str

    @property
    def command(self) -> str:
        flags = f"{self.flags} " if self.flags else ""
        return f"python main.py --flagfile=flags/{self.flagfile}.flags {flags}--seed={self.seed}"

    def values(self) -> dict[str, Any]:
        """The value of each flag of the run."""
        text = pathlib.Path("flags", f"{self.flagfile}.flags").read_text(encoding="utf-8")
        return read_flags("\n".join([text, *self.flags.split(), f"--seed={self.seed}"]))


def read_sections(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The sections of rows.toml. Their `rows` are `Row`s, one for each seed.

    Raises:
        DataError: if the file is not as it should be.
    """
    file = directory / "rows.toml"
    try:
        sections = tomllib.loads(file.read_text(encoding="utf-8"))["section"]
        for section in sections:
            section["rows"] = [
                Row(f"{row['name']}_seed{seed}", row["flagfile"], row.get("flags", ""), seed, row.get("beside", ""))
                for row in section.get("rows", [])
                for seed in row["seeds"]
            ]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}); fix it.") from error
    return sections


def same_run(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two sets of flags make the same network."""
    return all(ours[name] == theirs[name] for name in network_flags())


def collect(model_dirs: Sequence[str], name: str, export_dir: str, commit: str, hardware: str) -> None:
    """Writes the JSON files of finished runs.

    Args:
        model_dirs: directories of runs or sweeps.
        name: the name of the JSON file. If it is empty, the row with the run's flags has the name.
        export_dir: an export of the run in several formats, to measure it under gzip. Empty: there is none.
        commit: the commit that made the runs.
        hardware: the machine that made them.

    Raises:
        UserError: if no finished run belongs to a row. Otherwise runs without a row are left out.
    """
    directory = DOCS / "results"
    rows = [row for section in read_sections(directory) for row in section["rows"]]
    collected, refusal = 0, ""
    for model_dir in find_runs(model_dirs):
        run = Run.read(model_dir)
        if not run.result:
            print(f"{model_dir.path}: not finished, left out")
            continue
        row = next((row for row in rows if same_run(row.values(), run.flags)), None)
        if not name and row is None:
            refusal = f"{model_dir.path} has the flags of no row of {directory}/rows.toml; add one, or give --name."
            print(f"left out: {refusal}")
            continue
        source = {"command": row.command if row else "", "commit": commit, "hardware": hardware}
        run = dataclasses.replace(run.with_layers(model_dir), result=run.result | compressed_bytes(export_dir))
        file = directory / f"{name or (row and row.name)}.json"
        write_atomically(file, Record(run, source).to_json())
        print(f"{model_dir.path}: {file}")
        collected += 1
    if refusal and not collected:
        raise UserError(refusal)


def compressed_bytes(export_dir: str) -> dict[str, int]:
    """Bytes of the newest version of each format in EXPORT_DIR/FORMAT/VERSION, each of its files under gzip -9."""
    sizes = {}
    for version in sorted(pathlib.Path(export_dir).glob("*/*"), key=_version) if export_dir else ():
        if version.is_dir() and version.name.isdigit():
            contents = [path.read_bytes() for path in sorted(version.rglob("*")) if path.is_file()]
            sizes[f"{version.parent.name}_gzip_export_bytes"] = sum(len(gzip.compress(each, 9)) for each in contents)
    return sizes


def _version(path):
    return int(path.name) if path.name.isdigit() else -1


def write(docs: pathlib.Path = DOCS) -> None:
    """Writes docs/results.md and the pictures of docs/results."""
    text, pictures = results_text(docs)
    for name, png in pictures.items():
        (docs / "results" / name).write_bytes(png)
    write_atomically(docs / "results.md", text)


def results_text(docs: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """The contents of docs/results.md, and of its pictures by the names of their files.

    Raises:
        UserError: if a file has other flags than its row.
    """
    directory = docs / "results"
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    machines: list[str] = []
    for section in read_sections(directory):
        rows = section["rows"]
        records = {row.name: _read_row(directory, row) for row in rows}
        parts += [f"{'##' if parts else '#'} {section['title']}", section.get("text", "").strip("\n")]
        if rows:
            parts += [_commands(rows), _table(rows, records, section.get("columns", DEFAULT_COLUMNS), machines)]
        groups = make_groups([record.run for record in records.values() if record])
        if any(len(group.runs) > 1 for group in groups):
            parts += ["Mean ± standard deviation over seeds:", markdown_table(table_rows(groups))]
        plots = {plot.name: plot for plot in make_plots(groups)} if section.get("plots") else {}
        for plot in (plots[name] for name in section.get("plots", []) if name in plots):
            file = f"{section['name']}_{plot.name}.png"
            pictures[file] = plot.png
            parts.append(f"![{plot.title}](results/{file})")
    if machines:
        parts.append("## Hardware")
        parts.append("\n".join(f"- {_letter(number)}: {machine}" for number, machine in enumerate(machines)))
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _read_row(directory, row):
    file = directory / f"{row.name}.json"
    if not file.exists():
        return None
    record = Record.from_json(file)
    if not same_run(row.values(), record.run.flags):
        raise UserError(f"{file} is of a run with other flags than its row in rows.toml; correct one of them.")
    return record


def _commands(rows):
    """The command of all rows, where they differ in flagfile and seed alone."""
    (*others,) = {row.flags for row in rows}
    flags = f" {others[0]}" if len(others) == 1 and others[0] else "" if len(others) == 1 else " FLAGS"
    return f"    python main.py --flagfile=flags/FLAGFILE.flags{flags} --seed=SEED --data_dir=TFDS_ROOT"


def _table(rows, records, columns, machines):
    several = len({row.flags for row in rows}) > 1
    heads = [COLUMNS[name][0] if name in COLUMNS else name.replace("_", " ") for name in columns]
    head = ["method", "FLAGFILE", *(["FLAGS"] if several else []), "seed", *heads, "commit", "hardware", "beside it"]
    if not any(row.beside for row in rows):
        head.pop()
    table = [head]
    for row in rows:
        record, values = records[row.name], row.values()
        cells = [method_label(values), row.flagfile, *([row.flags] if several else []), str(row.seed)]
        if record is None:
            cells += [NOT_RUN, *[""] * (len(columns) + 1)]
        else:
            machine = record.source.get("hardware", "")
            if machine not in machines:
                machines.append(machine)
            cells += [_number(name, record.run.result.get(name)) for name in columns]
            cells += [record.source.get("commit", ""), _letter(machines.index(machine))]
        table.append([*cells, row.beside][: len(head)])
    return markdown_table(table)


def _number(name, value):
    if value is None:
        return ""
    return f"{value:{COLUMNS[name][1]}}" if name in COLUMNS else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def _letter(number):
    return chr(ord("A") + number)


def main(arguments: Iterable[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    collecting = commands.add_parser("collect")
    collecting.add_argument("model_dirs", nargs="+")
    collecting.add_argument("--name", default="", help="of the JSON file, for one run that belongs to no row")
    collecting.add_argument(
        "--export_dir", default="", help="of one run, exported in several formats: adds their bytes under gzip"
    )
    collecting.add_argument("--commit", help="that the runs were made with; this one, if it is not given")
    collecting.add_argument("--hardware", help="that they were made on; this machine, if it is not given")
    options = parser.parse_args(list(arguments))
    try:
        if options.command == "write":
            write()
        else:
            commit, hardware = options.commit or this_commit(), options.hardware or this_hardware()
            collect(options.model_dirs, options.name, options.export_dir, commit, hardware)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
