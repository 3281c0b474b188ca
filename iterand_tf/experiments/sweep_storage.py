"""Where Optuna keeps a sweep: a journal file in its directory, or a database."""

import pathlib
import time

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.storages.journal import JournalFileBackend

from iterand_tf.errors import UserError, first_line

JOURNAL = "sweep.journal"
# Two processes that make the tables of a new database at the same time disturb each other.
OPENING_TRIES = 10
BUSY_SECONDS = 60


def open_study(url: str, directory: pathlib.Path, name: str) -> optuna.Study:
    """Opens the sweep's study, or makes it.

    Args:
        url: Optuna's storage URL, or empty for the journal file in the directory.
        directory: the directory of the sweep.
        name: the name of the study.

    Raises:
        UserError: if the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for remaining in reversed(range(OPENING_TRIES)):
        try:
            return optuna.create_study(
                study_name=name, storage=_storage(url, directory), direction="maximize", load_if_exists=True
            )
        except (ImportError, sqlalchemy.exc.ArgumentError) as error:
            raise UserError(f"--sweep_storage names no database that can be used ({first_line(error)}).") from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
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
