"""The directory of a run: its files, and the rules for starting and continuing in it."""

import contextlib
import datetime
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, Self

from iterand_tf.errors import ModelDirError
from iterand_tf.files import check_writable, is_local, locked, temporary_of, write_atomically
from iterand_tf.training.config import Config
from iterand_tf.training.dataset import DatasetRecord
from iterand_tf.training.flags_file import changed_flags, flags_text


class ModelDir:
    """The files of a run."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.flags_file = path / "flags.txt"
        self.dataset = path / "dataset.json"
        self.best_model = path / "best.keras"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.csv"
        self.tensorboard = path / "tensorboard"
        self.result = path / "result.json"

    @classmethod
    def for_run(cls, config: Config) -> Self:
        """The directory of `--model_dir`, or where that is empty a new name below runs/. Writes nothing.

        It must be one that can be written, and empty or a run by the same flags that is to be resumed.
        """
        if not config.run.model_dir:
            if config.run.resume:
                raise ModelDirError("--resume needs --model_dir, the directory of the run to continue.")
            dataset = config.data.dataset.partition(":")[0].partition("/")[0]
            time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            return cls(pathlib.Path("runs", f"{dataset}_{config.model.model}_{config.method.method}_{time}"))
        run = cls(_local_path(config.run.model_dir))
        try:
            check_writable(run.path)
        except OSError as error:
            raise ModelDirError(
                f"--model_dir={run.path} cannot be written ({error.strerror}); give another."
            ) from error
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
        """The directory of a finished or interrupted run."""
        if not path:
            raise ModelDirError("--mode=evaluate and --mode=export need --model_dir, the directory of a run.")
        run = cls(_local_path(path))
        if not run.flags_file.is_file():
            raise ModelDirError(f"--model_dir={path} holds no run; give a directory that training has written.")
        return run

    @contextlib.contextmanager
    def created(self, config: Config) -> Iterator[None]:
        """Creates the directory and its flags file, and keeps other runs out of it."""
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
            # The standard output was closed, which the command line knows how to end.
            raise
        except OSError as error:
            raise ModelDirError(
                f"--model_dir={self.path} could not be written ({error.strerror}); make room and continue with "
                "--resume."
            ) from error

    def write_dataset(self, record: DatasetRecord) -> None:
        """Keeps what the run is trained on, unless an earlier part of the run has done so."""
        if not self.dataset.exists():
            with self.being_written():
                write_atomically(self.dataset, record.to_json())

    def read_dataset(self) -> DatasetRecord | None:
        """What `write_dataset` wrote; None for a run of a version that did not."""
        if not self.dataset.exists():
            return None
        with self.being_read(self.dataset):
            return DatasetRecord.from_json(self.dataset.read_text(encoding="utf-8"))

    def write_result(self, result: dict[str, Any]) -> None:
        with self.being_written():
            write_atomically(self.result, json.dumps(result, indent=2) + "\n")

    def read_result(self) -> dict[str, Any]:
        """What `write_result` wrote, or an empty dictionary."""
        with self.being_read(self.result):
            return json.loads(self.result.read_text(encoding="utf-8")) if self.result.exists() else {}

    @contextlib.contextmanager
    def being_read(self, path: pathlib.Path) -> Iterator[None]:
        """Turns an error of reading one of the run's files into a ModelDirError."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ModelDirError(f"{path} cannot be read and may be damaged; restore or remove it.") from error

    def remove(self) -> None:
        """Removes what the run has written, by name, and the directory itself if nothing else is in it."""
        for directory in (self.checkpoints, self.tensorboard):
            shutil.rmtree(directory, ignore_errors=True)
        for file in (self.flags_file, self.dataset, self.best_model, self.metrics, self.result):
            file.unlink(missing_ok=True)
            temporary_of(file).unlink(missing_ok=True)
        # A link, and a directory that holds files of others, stay.
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def check_flags(self, config: Config) -> None:
        """Raises ModelDirError unless the run was made by the flags of `config`, or ones that do not matter to it."""
        with self.being_read(self.flags_file):
            written = self.flags_file.read_text(encoding="utf-8")
        if changes := changed_flags(written, config):
            raise ModelDirError(
                f"--model_dir={self.path} was made by other flags ({changes}); use those, or another directory."
            )


def _local_path(model_dir):
    if not is_local(model_dir):
        raise ModelDirError(f"--model_dir={model_dir} is not in the local file system; give a local directory.")
    return pathlib.Path(model_dir).expanduser()
