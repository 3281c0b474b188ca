"""The points of a sweep: the flags that --grid and --search vary, and their values."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from iterand_tf.errors import UserError
from iterand_tf.experiments.config import SweepConfig
from iterand_tf.experiments.finished_runs import network_flags
from iterand_tf.training.config import Config

Configure = Callable[[Sequence[str]], Config]
Distribution = optuna.distributions.BaseDistribution


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep, named as its directory. In a search it has no values until it is taken."""

    name: str
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Space:
    """The points of a sweep in their order, and what Optuna chooses the value of each flag from."""

    points: tuple[Point, ...]
    distributions: dict[str, Distribution]


def point_flags(values: dict[str, Any]) -> list[str]:
    """The values of a point as flags of the command line."""
    return [f"--{flag}={value}" for flag, value in values.items()]


def make_space(options: SweepConfig, configure: Configure) -> Space:
    """The points that `--grid` or `--search` ask for.

    `configure` makes the configuration of the command line and more flags, and raises UserError for wrong ones.
    """
    if bool(options.grid) == bool(options.search):
        raise UserError("--mode=sweep needs --grid=FLAG=V1,V2 or --search=FLAG=LOW:HIGH, and not both.")
    space = _grid(options, configure) if options.grid else _search(options, configure)
    for point in space.points:
        config = configure(point_flags(point.values))
        if not config.data.validation_split or not config.training.epochs:
            raise UserError("a sweep compares validation accuracies; give --validation_split and --epochs above 0.")
    return space


def _grid(options, configure):
    choices: dict[str, list[Any]] = {}
    for text in options.grid:
        flag, values = _split(text, "grid", "FLAG=V1,V2,...", choices)
        choices[flag] = [_value(configure, flag, value) for value in values.split(",")]
        if len(set(choices[flag])) < len(choices[flag]):
            raise UserError(f"--grid={text} gives {flag} one value twice.")
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    points = [Point(",".join(f"{flag}={value}" for flag, value in each.items()), each) for each in combinations]
    for point in points:
        if "/" in point.name:
            raise UserError(f"--grid makes directories of the values, which {point.name} with its / cannot be.")
    return Space(
        tuple(points[: options.sweep_max_points or None]),
        {flag: optuna.distributions.CategoricalDistribution(values) for flag, values in choices.items()},
    )


def _search(options, configure):
    distributions: dict[str, Distribution] = {}
    for text in options.search:
        flag, limits = _split(text, "search", "FLAG=LOW:HIGH or FLAG=LOW:HIGH:log", distributions)
        low, _, high = limits.removesuffix(":log").partition(":")
        bounds = [_value(configure, flag, bound) for bound in (low, high)]
        if isinstance(bounds[0], bool) or not isinstance(bounds[0], int | float):
            raise UserError(f"--search={text}: {flag} is not a number.")
        log = limits.endswith(":log")
        if bounds[0] >= bounds[1] or (log and bounds[0] <= 0):
            raise UserError(f"--search={text} needs LOW below HIGH{', and LOW above 0' if log else ''}.")
        whole = isinstance(bounds[0], int)
        make: Any = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
        distributions[flag] = make(*bounds, log=log)
    if not options.sweep_max_points:
        raise UserError("--search needs --sweep_max_points, the number of points to try.")
    names = [f"point-{number:03}" for number in range(1, options.sweep_max_points + 1)]
    return Space(tuple(Point(name, {}) for name in names), distributions)


def _split(text, option_name, form, known):
    flag, equals, values = text.removeprefix("--").partition("=")
    if not equals or not values:
        raise UserError(f"--{option_name}={text} must be {form}.")
    if flag in known:
        raise UserError(f"--{option_name} gives {flag} twice; give all of its values at once.")
    if flag not in network_flags():
        raise UserError(f"--{option_name}={text}: {flag} is not a flag that a network depends on.")
    return flag, values


def _value(configure, flag, text):
    """The typed value that a flag has with this text."""
    return operator.attrgetter(f"{network_flags()[flag]}.{flag}")(configure([f"--{flag}={text}"]))


def make_sampler(name: str, seed: int, index: int) -> optuna.samplers.BaseSampler:
    """What chooses the values of the point with this index. What `"random"` chooses depends on seed and index alone."""
    seed = (seed * 1_000_003 + index) % 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
