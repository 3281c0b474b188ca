"""What finished runs leave in their directories, and their flags as values."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, Self

from iterand_tf.errors import ModelDirError
from iterand_tf.training.config import option_fields
from iterand_tf.training.epoch_figures import read_metrics
from iterand_tf.training.model_dir import ModelDir

_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "float | None": float,
    "str": str,
    "bool": lambda text: text.lower() == "true",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its flags, result.json, the rows of metrics.csv, and the `name`, `num_weights` and `num_kept` of layers.

    `result` is empty if the run is not finished.
    """

    flags: dict[str, Any]
    result: dict[str, Any]
    epochs: list[dict[str, float]]
    layers: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, model_dir: ModelDir) -> Self:
        """Reads a run's directory, without `layers`."""
        with model_dir.being_read(model_dir.flags_file):
            flags = read_flags(model_dir.flags_file.read_text(encoding="utf-8"))
        with model_dir.being_read(model_dir.metrics):
            rows = read_metrics(model_dir.metrics)
            epochs = [{name: float(text) for name, text in row.items() if text} for row in rows]
        return cls(flags, model_dir.read_result(), epochs)

    def with_layers(self, model_dir: ModelDir) -> Self:
        """The same run with its `layers`. Loading its network takes about a second."""
        import keras

        from iterand_tf.sparsity_report import sparsity_report

        if not model_dir.best_model.exists():
            return self
        with model_dir.being_read(model_dir.best_model):
            model = keras.models.load_model(model_dir.best_model, compile=False)
        layers = [
            {"name": layer.name, "num_weights": layer.num_weights, "num_kept": layer.num_kept}
            for layer in sparsity_report(model).layers
        ]
        return dataclasses.replace(self, layers=layers)


def read_flags(text: str) -> dict[str, Any]:
    """The value of each flag in a flagfile, or its default. Flags that do not belong to a run are left out."""
    fields = {field.name: field for fields in option_fields().values() for field in fields}
    values = {name: field.default for name, field in fields.items()}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("--").partition("=")
        if name in fields:
            field = fields[name]
            values[name] = _READ[getattr(field.type, "__name__", str(field.type))](value) if equals else True
    return values


@functools.cache
def network_flags() -> dict[str, str]:
    """The flags that a run's network depends on, each with the part of `Config` that holds it."""
    return {
        field.name: part
        for part, fields in option_fields().items()
        for field in fields
        if field.metadata.get("binding", True)
    }


def find_runs(directories: Iterable[str]) -> list[ModelDir]:
    """The directories of runs that are in, or anywhere below, the directories given."""
    found = []
    for directory in directories:
        path = pathlib.Path(directory).expanduser()
        files = [path / "flags.txt"] if (path / "flags.txt").is_file() else sorted(path.rglob("flags.txt"))
        if not directory or not files:
            raise ModelDirError(f"--model_dir={directory} holds no run; give directories of runs or sweeps.")
        found += [ModelDir(file.parent) for file in files]
    return found
