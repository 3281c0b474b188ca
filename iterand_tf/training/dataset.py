"""The dataset of a run, and its record in dataset.json, to find out when it has changed since."""

import dataclasses
import json
from typing import Any, Self

from iterand_tf import data
from iterand_tf.data import EvaluationSplit, Source, Splits
from iterand_tf.errors import DataError
from iterand_tf.training.config import Config


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What a run keeps of its dataset; the fields are those of `Splits`."""

    class_names: tuple[str, ...]
    image_size: int
    sources: dict[str, Source]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` has written."""
        record: dict[str, Any] = json.loads(text)
        return cls(
            tuple(record["class_names"]),
            record["image_size"],
            {name: Source(**source) for name, source in record["sources"].items()},
            tuple(record["notes"]),
        )

    def to_json(self) -> str:
        """The contents of dataset.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def difference(self, split: EvaluationSplit) -> str:
        """How what is there now differs from the record, as part of a sentence; "" where it does not."""
        if split.class_names != self.class_names:
            return f"its classes are {listed(split.class_names)} instead of {listed(self.class_names)}"
        wanted = self.sources.keys() if isinstance(split, Splits) else self.sources.keys() & {"test"}
        if missing := wanted - split.sources.keys():
            return f"its {min(missing)} part is gone"
        differences = (_difference(name, self.sources.get(name), now) for name, now in split.sources.items())
        return next(filter(None, differences), "")


def _difference(name, then, now):
    if then is None:
        return f"it had no {name} part"
    if now.num_examples != then.num_examples:
        return f"its {name} part has {now.num_examples:,} examples instead of {then.num_examples:,}"
    return "" if now == then else f"the examples of its {name} part have other names"


def listed(names: tuple[str, ...]) -> str:
    """The first names, and how many there are beside them."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def load_data(config: Config) -> Splits:
    """The dataset of a run, with its seeded validation split."""
    return data.load(
        config.data.dataset,
        config.data.data_dir,
        config.data.validation_split,
        config.data.max_train_examples,
        config.data.image_size,
        config.training.seed,
        config.data.test_split,
    )


def load_test_data(config: Config, record: DatasetRecord | None) -> EvaluationSplit:
    """What a run's network is tested on, and nothing else of the dataset unless the run kept no record of it."""
    options = config.data
    if record is None:
        return load_data(config)
    split = data.load_test(options.dataset, options.data_dir, record.image_size, options.test_split, record.class_names)
    check_dataset(config, record, split)
    return split


def check_dataset(config: Config, record: DatasetRecord | None, split: EvaluationSplit) -> None:
    """Raises DataError if the dataset is not what a run was trained on."""
    if record is not None and (difference := record.difference(split)):
        raise DataError(
            f"--dataset={config.data.dataset} has changed since the run was trained: {difference}; restore it, or "
            "train anew in another --model_dir."
        )
