"""What finished runs leave: read from their directories, and kept as one JSON file a run."""

import dataclasses
import json
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
    """One run.

    Args:
        name: what to call it.
        flags: the value of each flag.
        result: the contents of result.json; empty where the run is not finished.
        epochs: the rows of metrics.csv, as numbers.
        layers: for each kernel of a subnetwork `name`, `num_weights` and `num_kept`.
        source: where it was made: `commit`, `hardware`, `command`; empty where that was not recorded.
    """

    name: str
    flags: dict[str, Any]
    result: dict[str, Any]
    epochs: list[dict[str, float]]
    layers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    source: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, model_dir: ModelDir, with_layers: bool = False) -> Self:
        """Reads a run's directory.

        Args:
            model_dir: of the run.
            with_layers: whether to load the network for `layers`, which takes about a second.

        Raises:
            ModelDirError: if a file of it is damaged.
        """
        with model_dir.being_read(model_dir.flags_file):
            flags = read_flags(model_dir.flags_file.read_text(encoding="utf-8"))
        with model_dir.being_read(model_dir.metrics):
            rows = read_metrics(model_dir.metrics)
            epochs = [{name: float(text) for name, text in row.items() if text} for row in rows]
        layers = _layers(model_dir) if with_layers else []
        return cls(model_dir.path.name, flags, model_dir.read_result(), epochs, layers)

    @classmethod
    def from_json(cls, path: pathlib.Path) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ModelDirError: if it is damaged.
        """
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            flags = read_flags("\n".join(contents["flags"]))
            parts = (contents[part] for part in ("result", "epochs", "layers", "source"))
            return cls(path.stem, flags, *parts)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ModelDirError(f"{path} cannot be read as the record of a run; collect it again.") from error

    def to_json(self) -> str:
        """The run as text: of its flags those that are not at their defaults, and not where its data is."""
        defaults = read_flags("")
        changed = {name: value for name, value in self.flags.items() if value != defaults[name] and name != "data_dir"}
        flags = [f"--{name}={value}" for name, value in changed.items()]
        parts = {"flags": flags, "source": self.source, "result": self.result, "layers": self.layers}
        # An epoch is a line.
        epochs = ",\n".join(f"    {json.dumps(row)}" for row in self.epochs)
        return f'{json.dumps(parts, indent=2)[:-2]},\n  "epochs": [\n{epochs}\n  ]\n}}\n'


def read_flags(text: str) -> dict[str, Any]:
    """The value of each flag in a flagfile, or its default. Flags that are not those of a run are left out.

    Example:

    >>> read_flags("--sparsity=0.7\\n--batch_normalization\\n# a remark\\n")["sparsity"]
    0.7
    """
    fields = {field.name: field for fields in option_fields().values() for field in fields}
    values = {name: field.default for name, field in fields.items()}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("--").partition("=")
        if name in fields:
            field = fields[name]
            values[name] = _READ[getattr(field.type, "__name__", str(field.type))](value) if equals else True
    return values


def find_runs(directories: Iterable[str]) -> list[ModelDir]:
    """The directories of runs that are in, or anywhere below, the directories given.

    Raises:
        ModelDirError: if one of them holds none.
    """
    found = []
    for directory in directories:
        path = pathlib.Path(directory).expanduser()
        files = [path / "flags.txt"] if (path / "flags.txt").is_file() else sorted(path.rglob("flags.txt"))
        if not directory or not files:
            raise ModelDirError(f"--model_dir={directory} holds no run; give directories of runs or sweeps.")
        found += [ModelDir(file.parent) for file in files]
    return found


def _layers(model_dir):
    import keras

    from iterand_tf.sparsity_report import sparsity_report

    if not model_dir.best_model.exists():
        return []
    with model_dir.being_read(model_dir.best_model):
        model = keras.models.load_model(model_dir.best_model, compile=False)
    return [
        {"name": layer.name, "num_weights": layer.num_weights, "num_kept": layer.num_kept}
        for layer in sparsity_report(model).layers
    ]
