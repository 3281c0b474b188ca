"""Checks of arguments; each error names the argument, says what it must be, and shows what was received.

An option that the library, a factory and the command line share is a field of a dataclass that derives from `Options`:
`option` declares its default, its range and its line of help in one place.
"""

import dataclasses
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

# By the name of a limit: the words for it, and whether a value is within it.
_LIMITS = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "below": ("below", operator.lt),
}


class ArgumentError(ValueError):
    """An argument has a value that it cannot have; `wanted` is a phrase that follows "must be"."""

    def __init__(self, name: str, wanted: str, received: Any):
        super().__init__(f"{name} must be {wanted}. Received: {name}={received!r}")
        self.name = name
        self.wanted = wanted
        self.received = received

    def __reduce__(self):
        return type(self), (self.name, self.wanted, self.received)


def one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    """Returns `value` if it is one of `choices`."""
    if value not in choices:
        raise ArgumentError(name, f"one of {', '.join(choices)}", value)
    return value


def number(name: str, value: Any, **limits: float) -> float:
    """Returns `value` as a float if it is a finite number within the limits: `minimum`, `above`, `maximum`, `below`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(name, "a number", value)
    _check_limits(name, value, limits)
    return float(value)


def whole_number(name: str, value: Any, **limits: int) -> int:
    """Returns `value` as an int if it is a whole number, NumPy's integers included, within the limits of `number`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentError(name, "a whole number", value)
    _check_limits(name, value, limits)
    return int(value)


def _check_limits(name, value, limits):
    within = [(*_LIMITS[limit], bound) for limit, bound in limits.items()]
    if not math.isfinite(value) or not all(is_within(value, bound) for _, is_within, bound in within):
        wanted = " and ".join(f"{words} {bound}" for words, _, bound in within)
        raise ArgumentError(name, wanted or "finite", value)


def option(default: Any, help_line: str, *, choices: Sequence[str] = (), **limits: float) -> Any:
    """A field of an `Options` dataclass; `limits` are those of `number`.

    A field whose default is None may be None, and nothing else is checked then.
    """
    metadata = {"help": help_line, "choices": tuple(choices), "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
    """The base of dataclasses of options: each field is checked when an object is made.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Walk(Options):
    ...     speed: float = option(1.0, "metres a second", above=0)
    >>> Walk(speed=0)
    Traceback (most recent call last):
    iterand_tf.checks.ArgumentError: speed must be above 0. Received: speed=0
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "limits" not in field.metadata or (value is None and field.default is None):
                continue
            if field.metadata["choices"]:
                one_of(field.name, value, field.metadata["choices"])
            elif field.type in (int, "int"):
                whole_number(field.name, value, **field.metadata["limits"])
            elif field.metadata["limits"]:
                number(field.name, value, **field.metadata["limits"])
