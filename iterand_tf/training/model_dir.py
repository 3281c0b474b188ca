"""The directory of a run: its files, and the rules for starting and continuing in it."""

import contextlib
import dataclasses
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, Self

from iterand_tf.errors import ModelDirError
from iterand_tf.files import check_writable, locked, temporary_of, write_atomically
from iterand_tf.training.config import Config
from iterand_tf.training.flags_file import changed_flags, flags_text


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """Names of the files of a run.

    Args:
        path: the directory.
    """

    path: pathlib.Path

    @classmethod
    def for_run(cls, config: Config) -> Self:
        """The directory of `--model_dir`, or where that is empty a new name below runs/. Writes nothing.

        Raises:
            ModelDirError: if it cannot be written, holds a run that is not to be resumed, one made by other flags,
                or something else.
        """
        if not config.run.model_dir:
            if config.run.resume:
                raise ModelDirError("--resume needs --model_dir, the directory of the run to continue.")
            dataset = config.data.dataset.partition(":")[0].partition("/")[0]
            time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            return cls(pathlib.Path("runs", f"{dataset}_{config.model.model}_{config.method.method}_{time}"))
        run = cls(pathlib.Path(config.run.model_dir).expanduser())
        run._check_writable()
        left_by_a_killed_start = {temporary_of(run.flags_file)}
        if not run.path.exists() or set(run.path.iterdir()) <= left_by_a_killed_start:
            return run
        if not run.flags_file.exists():
            raise ModelDirError(f"--model_dir={run.path} holds files but no run; give a new or an empty directory.")
        if not config.run.resume:
            raise ModelDirError(
                f"--model_dir={run.path} holds a run; add --resume to continue it, or give another directory."
            )
        run.check_flags(config)
        return run

    @classmethod
    def existing(cls, path: str) -> Self:
        """The directory of a finished or interrupted run.

        Raises:
            ModelDirError: if there is none.
        """
        if not path:
            raise ModelDirError("--mode=evaluate and --mode=export need --model_dir, the directory of a run.")
        run = cls(pathlib.Path(path).expanduser())
        if not run.flags_file.is_file():
            raise ModelDirError(f"--model_dir={path} holds no run; give a directory that training has written.")
        return run

    @property
    def flags_file(self) -> pathlib.Path:
        return self.path / "flags.txt"

    @property
    def best_model(self) -> pathlib.Path:
        return self.path / "best.keras"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> pathlib.Path:
        return self.path / "metrics.csv"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.path / "tensorboard"

    @property
    def result(self) -> pathlib.Path:
        return self.path / "result.json"

    @contextlib.contextmanager
    def created(self, config: Config) -> Iterator[None]:
        """Creates the directory and its flags file, and keeps other runs out of it.

        Raises:
            ModelDirError: if another run is in it, or it cannot be written.
        """
        with self.being_written():
            self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path))
            except BlockingIOError as error:
                raise ModelDirError(
                    f"--model_dir={self.path} is in use by another run; give another directory."
                ) from error
            # Another run may have begun, and ended, since `for_run` has looked.
            if self.flags_file.exists() and not config.run.resume:
                raise ModelDirError(f"--model_dir={self.path} holds a run; add --resume to continue it.")
            with self.being_written():
                write_atomically(self.flags_file, flags_text(config))
            yield

    @contextlib.contextmanager
    def being_written(self) -> Iterator[None]:
        """Turns an error of writing below the directory, such as a full disk, into a ModelDirError."""
        try:
            yield
        except BrokenPipeError:
            # The standard output was closed, which main.py knows how to end.
            raise
        except OSError as error:
            raise ModelDirError(
                f"--model_dir={self.path} could not be written ({error.strerror}); make room and continue with "
                "--resume."
            ) from error

    def write_result(self, result: dict[str, Any]) -> None:
        with self.being_written():
            write_atomically(self.result, json.dumps(result, indent=2) + "\n")

    def read_result(self) -> dict[str, Any]:
        """What `write_result` wrote, or an empty dictionary."""
        with self.being_read(self.result):
            return json.loads(self.result.read_text()) if self.result.exists() else {}

    @contextlib.contextmanager
    def being_read(self, path: pathlib.Path) -> Iterator[None]:
        """Turns an error of reading one of the run's files into a ModelDirError."""
        try:
            yield
        except (ValueError, KeyError, OSError) as error:
            raise ModelDirError(f"{path} cannot be read and may be damaged; restore or remove it.") from error

    def remove(self) -> None:
        """Removes what the run has written, and the directory itself unless it is a link."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _check_writable(self):
        try:
            check_writable(self.path)
        except OSError as error:
            raise ModelDirError(
                f"--model_dir={self.path} cannot be written ({error.strerror}); give another."
            ) from error

    def check_flags(self, config: Config) -> None:
        """Raises ModelDirError unless the run was made by the flags of `config`, or ones that do not matter to it."""
        with self.being_read(self.flags_file):
            written = self.flags_file.read_text(encoding="utf-8")
        if changes := changed_flags(written, config):
            raise ModelDirError(
                f"--model_dir={self.path} was made by other flags ({changes}); use those, or another directory."
            )
