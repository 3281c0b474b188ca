"""--mode=report: a table and pictures of finished runs, as files and as one page."""

import base64
import html
import pathlib
from collections.abc import Sequence

from iterand_tf.errors import ModelDirError, UserError
from iterand_tf.experiments.plots import Plot, make_plots
from iterand_tf.experiments.records import Run, find_runs
from iterand_tf.experiments.summary import Group, as_csv, as_markdown, as_text, make_groups, summary_rows
from iterand_tf.files import write_atomically
from iterand_tf.training.model_dir import ModelDir

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
.wide { overflow-x: auto }
figure { margin: 2rem 0 }
img { max-width: 100%; height: auto }
"""


def report(model_dirs: str) -> None:
    """Prints a table of all runs in and below directories, and writes it with pictures to DIR/report of the first.

    Args:
        model_dirs: directories of runs or sweeps, comma-separated.

    Raises:
        ModelDirError: if a directory holds no run, a file is damaged, or the report cannot be written.
        UserError: if no run is finished.
    """
    directories = model_dirs.split(",")
    runs, unfinished = _read(find_runs(directories))
    groups = make_groups(runs)
    if not groups:
        raise UserError(f"no run of --model_dir={model_dirs} is finished; report on it when one is.")
    plots = make_plots(groups)
    target = ModelDir(pathlib.Path(directories[0]).expanduser())
    directory = target.path / "report"
    with target.being_written():
        directory.mkdir(exist_ok=True)
        for plot in plots:
            (directory / f"{plot.name}.png").write_bytes(plot.png)
        remarks = "".join(f"\n{line}" for line in unfinished)
        write_atomically(directory / "report.txt", f"{as_text(groups)}{remarks}\n")
        write_atomically(directory / "report.md", f"{as_markdown(groups)}\n{remarks}\n")
        write_atomically(directory / "report.csv", as_csv(groups))
        write_atomically(directory / "report.html", page(f"Report on {model_dirs}", groups, unfinished, plots))
    print(f"{as_text(groups)}{remarks}\n\nwrote {directory}/report.html, .md, .csv, .txt and {len(plots)} pictures")


def _read(model_dirs: Sequence[ModelDir]) -> tuple[list[Run], list[str]]:
    """The finished runs, of each experiment one with its layers, and a line for each other run."""
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
            run = Run.read(model_dir, with_layers=True)
        runs.append(run)
    return runs, unfinished


def _why(model_dir: ModelDir) -> str:
    """What the log that a sweep keeps says last, if there is one."""
    log = model_dir.path.with_name(f"{model_dir.path.name}.log")
    if not log.is_file():
        return ""
    try:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
    except OSError as error:
        raise ModelDirError(f"{log} cannot be read ({error.strerror}).") from error
    return f" ({errors[-1]})" if errors else ""


def page(title: str, groups: Sequence[Group], remarks: Sequence[str], plots: Sequence[Plot]) -> str:
    """One page of HTML that needs no other file.

    Args:
        title: of the page.
        groups: for its table.
        remarks: lines below it.
        plots: below those.
    """
    head, *body = ([html.escape(cell) for cell in row] for row in summary_rows(groups))
    rows = ["".join(f"<th>{cell}</th>" for cell in head)]
    rows += ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    table = "\n".join(f"<tr>{row}</tr>" for row in rows)
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
{"".join(map(_figure, plots))}</body></html>
"""


def _figure(plot):
    contents = base64.b64encode(plot.png).decode()
    return f'<figure><img alt="{html.escape(plot.title)}" src="data:image/png;base64,{contents}"></figure>\n'
