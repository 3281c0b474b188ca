"""The newest states of a run on disk: one file each, written whole or not at all, checked when it is read.

A file is a NumPy archive, whose entries carry checksums. Where the newest cannot be read, the one before it is used.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np

from iterand_tf.errors import ModelDirError
from iterand_tf.files import open_atomically

_PROGRESS = "progress"


class Checkpoints:
    """Saves and finds states, numbered by training steps.

    Args:
        directory: created when the first is saved; its parent must exist.
        max_to_keep: older files are removed, and what a process that was killed has left.

    Example:

    >>> import tempfile
    >>> checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp()), max_to_keep=1)
    >>> checkpoints.save(3, {"epoch": 1}, {"kernel": np.ones(2)})
    >>> progress, arrays = checkpoints.newest()
    >>> progress, arrays["kernel"].tolist()
    ({'epoch': 1}, [1.0, 1.0])
    """

    def __init__(self, directory: pathlib.Path, max_to_keep: int = 2):
        self._directory = directory
        self._max_to_keep = max_to_keep
        self._unreadable: set[pathlib.Path] = set()

    def files(self) -> list[pathlib.Path]:
        """The files that are there, the newest first."""
        return sorted(self._directory.glob("step-*.npz"), reverse=True)

    def save(self, step: int, progress: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Writes a state.

        Raises:
            OSError: if it cannot be written; the earlier ones are intact.
        """
        path = self._directory / f"step-{step:010}.npz"
        self._directory.mkdir(exist_ok=True)
        entries: dict[str, Any] = {**arrays, _PROGRESS: np.frombuffer(json.dumps(progress).encode(), np.uint8)}
        with open_atomically(path) as file:
            np.savez(file, **entries)
        # Files of later steps could not be read when the run was continued at an earlier one.
        later = [file for file in self.files() if file > path]
        earlier = [file for file in self.files() if file < path and file not in self._unreadable]
        left = self._directory.glob(".step-*.tmp")
        self._unreadable.discard(path)
        for old in (*later, *self._unreadable, *earlier[self._max_to_keep - 1 :], *left):
            old.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Progress and arrays of the newest state that can be read; None if none was saved.

        Raises:
            ModelDirError: if there are files, but none can be read.
        """
        files = self.files()
        for path in files:
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                return json.loads(arrays.pop(_PROGRESS).tobytes()), arrays
            except Exception as error:
                # A damaged archive fails in many ways.
                print(f"warning: {path} cannot be read ({error}); trying the checkpoint before it", file=sys.stderr)
                self._unreadable.add(path)
        if files:
            raise ModelDirError(
                f"no checkpoint in {self._directory} can be read; restore one, or train anew elsewhere."
            )
        return None
