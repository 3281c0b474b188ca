"""Numbered versions in an export directory, which appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import tensorflow as tf

from iterand_tf import checks
from iterand_tf.errors import ExportError
from iterand_tf.files import check_writable, is_local


def check_export_dir(export_dir: str | os.PathLike) -> pathlib.Path:
    """Returns the directory's path, or raises ExportError unless versions can be written into it."""
    if not is_local(export_dir):
        raise ExportError(
            f"export_dir={export_dir} is not in the local file system; export to a local directory, and copy the "
            "version from there."
        )
    path = pathlib.Path(export_dir).expanduser()
    if not str(export_dir):
        raise ExportError("export_dir is empty; give the directory to write EXPORT_DIR/VERSION into.")
    try:
        check_writable(path)
    except OSError as error:
        raise ExportError(f"export_dir={path} cannot be written ({error.strerror}); give another.") from error
    return path


def targets_of(directory: pathlib.Path, formats: Sequence[str], version: int | None) -> dict[str, pathlib.Path]:
    """The directory of each format's version, which does not exist yet."""
    parents = {name: directory / name if len(formats) > 1 else directory for name in formats}
    version = (
        max(map(_next_version, parents.values()))
        if version is None
        else checks.whole_number("version", version, minimum=1)
    )
    for parent in parents.values():
        if (parent / str(version)).exists():
            raise ExportError(
                f"{parent / str(version)} exists already and is not overwritten; give another version or export_dir."
            )
    return {name: parent / str(version) for name, parent in parents.items()}


def _next_version(directory):
    versions = (int(entry.name) for entry in directory.glob("*") if entry.name.isdecimal())
    return max(versions, default=0) + 1


@contextlib.contextmanager
def being_written(path: pathlib.Path) -> Iterator[None]:
    """Says in an ExportError that files could not be written; only the writing itself stands inside."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"{path} could not be written: {error}.") from error


@contextlib.contextmanager
def written_whole(directory: pathlib.Path, targets: dict[str, pathlib.Path]) -> Iterator[dict[str, pathlib.Path]]:
    """Temporary directories to write, renamed to their targets at the end; removed after an error."""
    temporary = directory / f".{next(iter(targets.values())).name}.{os.getpid()}.tmp"
    paths = {name: temporary / name for name in targets}
    parents = {directory, *directory.parents, *(target.parent for target in targets.values())}
    with contextlib.ExitStack() as after_an_error:
        # What comes last goes first: a directory before its parent.
        for missing in sorted(path for path in parents if not path.exists()):
            after_an_error.callback(_remove_if_empty, missing)
        after_an_error.callback(shutil.rmtree, temporary, ignore_errors=True)
        # A killed process that had our number may have left one behind.
        shutil.rmtree(temporary, ignore_errors=True)
        with being_written(directory):
            temporary.mkdir(parents=True)
        yield paths
        with being_written(directory):
            for name, target in targets.items():
                target.parent.mkdir(exist_ok=True)
                paths[name].rename(target)
                after_an_error.callback(shutil.rmtree, target, ignore_errors=True)
        after_an_error.pop_all()
    shutil.rmtree(temporary, ignore_errors=True)


def _remove_if_empty(directory):
    with contextlib.suppress(OSError):
        directory.rmdir()
