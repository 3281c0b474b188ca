"""--mode=sweep: begins a sweep in its directory, or joins the one that is there, and works on it."""

import contextlib
import json
import os
import pathlib
import secrets
import time
from collections.abc import Sequence

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError as StorageError
from optuna.storages.journal import JournalFileBackend

from iterand_tf.errors import ModelDirError, UserError, first_line
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.experiments.search_space import Configure, make_sampler, make_space, point_flags
from iterand_tf.experiments.shared_points import SharedPoints
from iterand_tf.experiments.sweep_worker import Worker
from iterand_tf.files import write_atomically
from iterand_tf.interruption import deferred_signals
from iterand_tf.text_table import text_table
from iterand_tf.training.config import Config
from iterand_tf.training.flags_file import changed_flags, flags_text
from iterand_tf.training.model_dir import ModelDir

JOURNAL = "sweep.journal"
# Two processes that make the tables of a new database at the same time disturb each other.
OPENING_TRIES = 10
BUSY_SECONDS = 60


def sweep(options: SweepConfig, configure: Configure, command: Sequence[str]) -> None:
    """Runs the points of a sweep together with all other processes that do the same, until all are done.

    Each point is a run in MODEL_DIR/POINT. Its output is in MODEL_DIR/POINT.log. `command` starts main.py.
    """
    config = configure([])
    space = make_space(options, configure)
    if options.sweep_dry_run:
        print(_plan(space, options))
        return
    if not config.run.model_dir:
        raise ModelDirError("--mode=sweep needs --model_dir, the directory of the sweep.")
    directory = ModelDir(pathlib.Path(config.run.model_dir).expanduser())
    name = _join(directory, options, config)
    try:
        study = open_study(options.sweep_storage, directory.path, name)
        points = SharedPoints(
            study,
            space,
            lambda index: make_sampler(options.sweep_sampler, config.training.seed, index),
            options.sweep_patience,
        )
        if config.run.resume:
            points.retry_failed()
        with deferred_signals() as request, directory.being_written():
            Worker(options, configure, command, directory.path, points, request).run()
    except StorageError as error:
        raise UserError(f"the sweep's storage failed ({first_line(error)}); repeat the command to continue.") from error
    except json.JSONDecodeError as error:
        # A process was killed, or the disk was full, in the midst of a line.
        raise ModelDirError(
            f"{directory.path / JOURNAL} is damaged; remove it and repeat the command, which trains no finished point "
            "again."
        ) from error


def _plan(space, options):
    rows = [("point", "flags")]
    rows += [(point.name, " ".join(point_flags(point.values) or options.search)) for point in space.points]
    return f"{text_table(rows)}\n{len(space.points)} points"


def _join(directory: ModelDir, options: SweepConfig, config: Config) -> str:
    """Enters the sweep in the directory, or begins one there; returns the name of its study."""
    file = directory.path / "sweep.json"
    with directory.being_written():
        directory.path.mkdir(parents=True, exist_ok=True)
        if directory.flags_file.exists():
            raise ModelDirError(f"--model_dir={directory.path} holds a run; give another directory for the sweep.")
        asked = {"grid": list(options.grid), "search": list(options.search)}
        mine = {"study": f"{directory.path.resolve().name}-{secrets.token_hex(4)}", **asked}
        _create(file, json.dumps(mine | {"flags": flags_text(config).splitlines()}, indent=2) + "\n")
    with directory.being_read(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        changes = changed_flags("\n".join(found["flags"]), config)
        changes = changes or " ".join(
            f"--{name}={' '.join(asked[name]) or 'nothing'} instead of {' '.join(found[name]) or 'nothing'}"
            for name in asked
            if asked[name] != found[name]
        )
        study = str(found["study"])
    if changes:
        raise ModelDirError(f"--model_dir={directory.path} holds a sweep of other flags ({changes}); give those.")
    return study


def _create(file, text):
    """Writes a file unless it is there; of several processes one writes, and all see a whole file."""
    mine = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    write_atomically(mine, text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(mine, file)
    finally:
        mine.unlink()


def open_study(url: str, directory: pathlib.Path, name: str) -> optuna.Study:
    """Opens the sweep's study, or makes it, at Optuna's storage URL or in the journal file of the directory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for remaining in reversed(range(OPENING_TRIES)):
        try:
            return optuna.create_study(
                study_name=name, storage=_storage(url, directory), direction="maximize", load_if_exists=True
            )
        except (ImportError, sqlalchemy.exc.ArgumentError) as error:
            raise UserError(f"--sweep_storage names no database that can be used ({first_line(error)}).") from error
        except (sqlalchemy.exc.SQLAlchemyError, StorageError) as error:
            if not remaining:
                raise UserError(f"--sweep_storage cannot be reached ({first_line(error)}); is it running?") from error
            time.sleep(0.5)
    raise AssertionError("not reached")


def _storage(url: str, directory: pathlib.Path) -> optuna.storages.BaseStorage:
    if not url:
        return optuna.storages.JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    # Without an isolation level the driver begins no transactions of its own, which would begin at the first write.
    # Tables are made without a transaction, see OPENING_TRIES.
    storage = optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}}
    )
    sqlalchemy.event.listen(storage.engine, "begin", _begin_writing)
    return storage


def _begin_writing(connection):
    """Begins a transaction of sqlite as a writing one. Only one process at a time has such a transaction.

    Optuna reads that a trial waits and then writes that it runs. Other databases lock the row that was read. Sqlite
    locks no rows, so two processes could take the same trial.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")
