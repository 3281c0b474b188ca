"""The files of --mode=report: a table and pictures of finished runs, each by itself and all on one page."""

import base64
import html
import pathlib
from collections.abc import Sequence

from iterand_tf.errors import ModelDirError, UserError
from iterand_tf.experiments.finished_runs import Run, find_runs
from iterand_tf.experiments.group_tables import csv_text, table_rows
from iterand_tf.experiments.run_groups import make_groups
from iterand_tf.experiments.run_plots import Plot, make_plots
from iterand_tf.files import write_atomically
from iterand_tf.text_table import markdown_table, text_table
from iterand_tf.training.model_dir import ModelDir

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
.wide { overflow-x: auto }
figure { margin: 2rem 0 }
img { max-width: 100%; height: auto }
"""


def write_report(model_dirs: str) -> None:
    """Prints a table of all runs in and below directories. Writes it with pictures to DIR/report of the first one.

    Args:
        model_dirs: directories of runs or sweeps, comma-separated.
    """
    directories = model_dirs.split(",")
    runs, unfinished = _read(find_runs(directories))
    groups = make_groups(runs)
    if not groups:
        raise UserError(f"no run of --model_dir={model_dirs} is finished; report on it when one is.")
    rows, plots = table_rows(groups), make_plots(groups)
    target = ModelDir(pathlib.Path(directories[0]).expanduser())
    directory = target.path / "report"
    with target.being_written():
        directory.mkdir(exist_ok=True)
        for plot in plots:
            (directory / f"{plot.name}.png").write_bytes(plot.png)
        remarks = "".join(f"\n{line}" for line in unfinished)
        text = f"{text_table(rows)}{remarks}\n"
        write_atomically(directory / "report.txt", text)
        write_atomically(directory / "report.md", f"{markdown_table(rows)}\n{remarks}\n")
        write_atomically(directory / "report.csv", csv_text(groups))
        write_atomically(directory / "report.html", page(f"Report on {model_dirs}", rows, unfinished, plots))
    print(f"{text}\nwrote {directory}/report.html, .md, .csv, .txt and {len(plots)} pictures")


def _read(model_dirs: Sequence[ModelDir]) -> tuple[list[Run], list[str]]:
    """The finished runs, one of each experiment with its layers, and a line for each run that is not finished."""
    runs, unfinished = [], []
    with_layers: set[str] = set()
    for model_dir in model_dirs:
        run = Run.read(model_dir)
        if not run.result:
            unfinished.append(f"not finished: {model_dir.path}{_why(model_dir)}")
            continue
        experiment = str(run.flags | {"seed": 0})
        if experiment not in with_layers:
            with_layers.add(experiment)
            run = run.with_layers(model_dir)
        runs.append(run)
    return runs, unfinished


def _why(model_dir: ModelDir) -> str:
    """The last error in the log that a sweep keeps, if there is one."""
    log = model_dir.path.with_name(f"{model_dir.path.name}.log")
    if not log.is_file():
        return ""
    try:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
    except OSError as error:
        raise ModelDirError(f"{log} cannot be read ({error.strerror}).") from error
    return f" ({errors[-1]})" if errors else ""


def page(title: str, rows: Sequence[Sequence[str]], remarks: Sequence[str], plots: Sequence[Plot]) -> str:
    """One page of HTML that needs no other file: the table, its head first, the remarks, and the pictures."""
    tags = ["th", *["td"] * (len(rows) - 1)]
    cells = [[f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row] for tag, row in zip(tags, rows, strict=True)]
    table = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    images = ((html.escape(plot.title), base64.b64encode(plot.png).decode()) for plot in plots)
    figures = "".join(f'<figure><img alt="{alt}" src="data:image/png;base64,{png}"></figure>\n' for alt, png in images)
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{_STYLE}</style></head>
<body><h1>{title}</h1>
<p>Mean ± standard deviation over seeds.</p>
<div class="wide"><table>
{table}
</table></div>
{"".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)}
{figures}</body></html>
"""
