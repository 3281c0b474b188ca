"""dataset.json: which dataset a run was trained on, to find out when it has changed since."""

import dataclasses
import json
from typing import Any, Self

from iterand_tf.data import EvaluationSplit, Source, Splits


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What a run keeps of its dataset.

    Args:
        class_names: by label, in the order of the network's logits.
        image_size: pixels of the square that images are resized to as they are read; 0 where they are in memory.
        sources: the stored parts of the dataset, by name.
        notes: how the parts came about, a sentence each.
    """

    class_names: tuple[str, ...]
    image_size: int
    sources: dict[str, Source]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, splits: Splits) -> Self:
        """The record of what a run is about to train on."""
        return cls(splits.class_names, splits.image_size, splits.sources, splits.notes)

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
        """How what is there now differs from the record, as part of a sentence; "" where it does not.

        Example:

        >>> record = DatasetRecord(("cat", "dog"), 0, {"train": Source(2, "0"), "test": Source(1, "1")})
        >>> record.difference(EvaluationSplit(None, ("cat", "dog"), {"test": Source(3, "2")}))
        'its test part has 3 examples instead of 1'
        """
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
