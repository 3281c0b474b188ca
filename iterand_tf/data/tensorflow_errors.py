"""What errors of TensorFlow's input pipelines mean to the user."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from iterand_tf.errors import DataError

_UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)


@contextlib.contextmanager
def reading(dataset: str) -> Iterator[None]:
    """Within, what cannot be read or decoded is a DataError that names the dataset."""
    try:
        yield
    except _UNREADABLE as error:
        raise DataError(
            f"--dataset={dataset} cannot be read ({reason(error)}); mend or remove what is broken in it."
        ) from error


def reason(error: tf.errors.OpError) -> str:
    """The telling line of an error of TensorFlow."""
    lines = [re.sub(r"\{\{.*?\}\}|\[Op:.*", "", line).strip() for line in error.message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    if not lines:
        return type(error).__name__
    # Of an error in a graph the call stack comes before the reason.
    line = lines[-1] if lines[0] == "Graph execution error:" else lines[0]
    return re.sub(r"^Error in user-defined function passed to .*? with iterator: \S+: ", "", line).rstrip(".")
