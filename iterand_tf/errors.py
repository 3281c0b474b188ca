"""Errors that main.py turns into one sentence and an exit code."""


class UserError(Exception):
    """Something the user can mend: the message is one sentence that says how. Exit code 1: flags and their values."""

    exit_code = 1


class DataError(UserError):
    """The dataset is missing, empty or not what was asked for. Exit code 2."""

    exit_code = 2


class ModelDirError(UserError):
    """The model_dir cannot be written, holds another run, or holds none. Exit code 3."""

    exit_code = 3


class ExportError(UserError):
    """The export could not be written, or what was written differs from the trained model. Exit code 4."""

    exit_code = 4
