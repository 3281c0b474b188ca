"""The options of a sweep; cli.py defines one flag from each field."""

import dataclasses
from typing import Any, Self

from iterand_tf.checks import ArgumentError, Options, option
from iterand_tf.training.config import flag_error


@dataclasses.dataclass(frozen=True)
class SweepConfig(Options):
    """Which points --mode=sweep runs, and how its processes share them."""

    grid: tuple[str, ...] = option(
        (), "in a sweep, run each of FLAG=V1,V2,...; given several times: run each combination of the values"
    )
    search: tuple[str, ...] = option(
        (),
        "in a sweep, look for the value of FLAG=LOW:HIGH, or FLAG=LOW:HIGH:log, that gives the best validation "
        "accuracy; may be given several times, and needs --sweep_max_points",
    )
    sweep_sampler: str = option(
        "tpe", "choose the values of --search from those tried before (tpe), or at random", choices=("tpe", "random")
    )
    sweep_max_points: int = option(
        0, "run at most this number of points, over all processes; 0: all points of a grid", minimum=0
    )
    sweep_storage: str = option(
        "", "share the state of the sweep at this Optuna storage URL; empty: in a journal file in --model_dir"
    )
    sweep_patience: float = option(
        60.0, "take the point of another process when it has given no sign for this number of seconds", above=0
    )
    sweep_dry_run: bool = option(False, "list the points of the sweep, run none and write nothing")

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Takes its fields from a dictionary that may hold more; a value out of range is a UserError."""
        own = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        try:
            return cls(**own | {name: tuple(own[name]) for name in ("grid", "search")})
        except ArgumentError as error:
            raise flag_error(error) from error
