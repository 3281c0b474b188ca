"""Errors that the command line turns into one sentence and an exit code."""


class UserError(Exception):
    """Something the user can mend: the message is one sentence that says how. Exit code 1: flags and their values."""

    exit_code = 1


class DataError(UserError):
    """The dataset is missing, empty or not what was asked for. Exit code 2."""

    exit_code = 2


class ModelDirError(UserError):
    """The model_dir cannot be written, holds another run, or holds none. Exit code 3."""

    exit_code = 3


class DivergedError(UserError):
    """The loss became NaN or infinite. Exit code 5."""

    exit_code = 5


class LostWorkerError(UserError):
    """Another worker has gone. Exit code 6."""

    exit_code = 6


class ExportError(UserError):
    """The export could not be written, or what was written differs from the trained model. Exit code 4."""

    exit_code = 4


class SweepError(UserError):
    """Points of a sweep have failed; the others are done. Exit code 7."""

    exit_code = 7


def first_line(error: BaseException) -> str:
    """What an error of a library says, in a line: to be shown, never to be decided by.

    Example:

    >>> first_line(ValueError("no such file\\nTraceback ...")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    lines = getattr(error, "message", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
