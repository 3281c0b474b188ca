"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def open_atomically(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing so that a reader sees the old or the new contents, never a part.

    After an error the old contents are still there, and nothing else.
    """
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_of(path: pathlib.Path) -> pathlib.Path:
    """The file that `open_atomically` writes first; a process that is killed leaves it."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file by `open_atomically`."""
    with open_atomically(path) as file:
        file.write(text.encode())


def check_writable(directory: pathlib.Path) -> None:
    """Raises OSError unless files can be written into a directory, which need not exist yet; leaves nothing."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
