"""Files that are written whole or not at all, and directories that one process has to itself."""

import contextlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_WINDOWS_LOCK = ".lock"


@contextlib.contextmanager
def open_atomically(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing so that a reader sees the old or the new contents, also after an error, never a part."""
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
    with open_atomically(path) as file:
        file.write(text.encode())


def is_local(path: str | os.PathLike) -> bool:
    """Whether a path names a place in the local file system, unlike gs://bucket/run.

    Example:

    >>> is_local("runs/one"), is_local("gs://bucket/run")
    (True, False)
    """
    # pathlib folds the slashes of gs://bucket; a scheme of one letter is a drive of Windows.
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path))


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


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other processes that ask for the same lock out of a directory, which must exist.

    If another process has the lock, it raises BlockingIOError. On a file system without locks it keeps nobody out.
    """
    if sys.platform == "win32":
        # Windows locks bytes of files, not directories.
        path = directory / _WINDOWS_LOCK
        file = path.open("wb")
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            file.close()
            raise BlockingIOError(*error.args) from error
        try:
            yield
        finally:
            # Closing a file ends its locks.
            file.close()
            path.unlink(missing_ok=True)
        return
    # A lock on the directory itself leaves no file behind.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
