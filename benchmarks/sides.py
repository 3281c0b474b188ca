"""Timing of sides: ways to do one thing that take turns in one process, so that a drift of the machine cancels out."""

import contextlib
import dataclasses
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SHORTEST_TURN = 0.02


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One side's seconds over another's, round by round.

    Args:
        first: name of a side.
        second: name of the side to divide by.
        at_least: target of the median.
        at_most: target of the median.
    """

    first: str
    second: str
    at_least: float | None = None
    at_most: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """What was measured of one case.

    Args:
        name: of the case.
        seconds: of each round, by the side's name.
        ratios: of sides.
        values: other figures, by name.
    """

    name: str
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    ratios: tuple[Ratio, ...] = ()
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What the JSON file holds: quartiles, and whether targets are met."""
        return {
            "case": self.name,
            "ratios": {f"{each.first}/{each.second}": self._ratio(each) for each in self.ratios},
            "seconds": {side: quartiles(values) for side, values in self.seconds.items()},
            "rounds": max(map(len, self.seconds.values()), default=0),
            "values": self.values,
        }

    def _ratio(self, ratio):
        pairs = zip(self.seconds[ratio.first], self.seconds[ratio.second], strict=True)
        record: dict[str, Any] = {"quartiles": quartiles([first / second for first, second in pairs])}
        median = record["quartiles"][1]
        if ratio.at_least is not None:
            record |= {"target": f"at least {ratio.at_least:g}", "met": median >= ratio.at_least}
        if ratio.at_most is not None:
            record |= {"target": f"at most {ratio.at_most:g}", "met": median <= ratio.at_most}
        return record


def take_turns(sides: dict[str, Callable[[], Any]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of a call in each round of each side, after some that do not count; every other round goes backwards.

    A side that takes less than `SHORTEST_TURN` seconds is called several times in its turn, because otherwise it would
    pay for the caches that the others have filled. How often, the last round of the warm-up says: let it have two where
    the first one compiles.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    calls = dict.fromkeys(sides, 1)
    for number in range(warmup + rounds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            for _ in range(calls[side]):
                sides[side]()
            passed = (time.perf_counter() - start) / calls[side]
            if number >= warmup:
                seconds[side].append(passed)
            else:
                calls[side] = max(1, math.ceil(SHORTEST_TURN / passed))
    return seconds


@contextlib.contextmanager
def in_a_process(command: Sequence[str], **environment: str) -> Iterator[Callable[[], None]]:
    """A side that runs in a process of its own; the way there adds about 0.05 ms to a call.

    Args:
        command: that starts the process; for each line of its input it does the work once and then writes a line.
        **environment: variables of its environment, besides those of this process.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, env=os.environ | environment) as process:

        def call():
            process.stdin.write(b"\n")
            if not process.stdout.readline():
                raise RuntimeError(f"ended, and said above why: {' '.join(command)}")

        yield call
        process.stdin.close()


def quartiles(values: list[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def at_most(value: float, target: float) -> str:
    """What a table says of the target of a figure that is no ratio."""
    return f"at most {value_text(target)}: {'met' if value <= target else '**not met**'}"


def line(record: dict[str, Any]) -> str:
    """One line of text for the record of a case, its ratios first."""
    parts = [f"{name} {ratio_text(ratio)}" for name, ratio in record["ratios"].items()]
    parts += [f"{side} {duration_text(seconds[1])}" for side, seconds in record["seconds"].items()]
    parts += [f"{name} {value_text(value)}" for name, value in record["values"].items()]
    return f"{record['case']}: " + ", ".join(parts)


def ratio_text(ratio: dict[str, Any]) -> str:
    """The median, the quartiles and what the target says."""
    target = f", {ratio['target']}: {'met' if ratio['met'] else 'NOT met'}" if "target" in ratio else ""
    return quartiles_text(ratio["quartiles"]) + target


def quartiles_text(values: list[float]) -> str:
    """The median, and the quartiles in brackets."""
    low, median, high = (f"{value:.3g}" if value >= 2 else f"{value:.3f}" for value in values)
    return f"{median} [{low} to {high}]"


def duration_text(seconds: float) -> str:
    """Seconds or milliseconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def value_text(value: Any) -> str:
    """A figure as the report prints it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)
