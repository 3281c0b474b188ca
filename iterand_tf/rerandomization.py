"""Re-drawing pruned kernel entries: when, which and how (Chijiwa et al., NeurIPS 2021, section 3, algorithm 1)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from iterand_tf import checks

# Gives the values that re-drawn entries take: a function of (kernel, mask, fresh_kernel, seed).
Replacement = Callable[[Any, Any, Any, int], Any]


def fresh(kernel: Any, mask: Any, fresh_kernel: Any, seed: int) -> Any:
    """The new draw (Chijiwa et al., NeurIPS 2021, algorithm 1)."""
    return fresh_kernel


def recycled(kernel: Any, mask: Any, fresh_kernel: Any, seed: int) -> Any:
    """Values of kept entries, each of them equally likely, in place of the new draw.

    Where nothing is kept it is the new draw. In the paper the entries with the lowest scores take the values of those
    with the highest; here any pruned entry may take that of any kept one, at the schedule's rate.

    Reference:
        After Gorbett and Whitley, "Randomly Initialized Subnetworks with Iterative Weight Recycling", 2023.
    """
    kept = np.flatnonzero(ops.convert_to_numpy(mask))
    if not kept.size:
        return fresh_kernel
    places = keras.random.randint(np.shape(fresh_kernel), 0, kept.size, seed=seed)
    values = ops.take(ops.reshape(ops.convert_to_tensor(kernel), (-1,)), kept)
    return ops.take(values, places)


@dataclasses.dataclass(frozen=True)
class Blended:
    """`old` times the entry plus `new` times its new draw; both are numbers of at least 0.

    Where `old ** 2 + new ** 2` is 1, as by default, the values keep their variance.
    """

    old: float = math.sqrt(0.5)
    new: float = math.sqrt(0.5)

    def __post_init__(self):
        checks.number("old", self.old, minimum=0)
        checks.number("new", self.new, minimum=0)

    def __call__(self, kernel, mask, fresh_kernel, seed):
        kernel = ops.convert_to_tensor(kernel)
        return self.old * kernel + self.new * ops.cast(fresh_kernel, kernel.dtype)


MODES: dict[str, Replacement] = {"draw": fresh, "blend": Blended(), "recycle": recycled}


@dataclasses.dataclass(frozen=True)
class RerandomizationSchedule:
    """After every `period` steps each pruned entry is re-drawn with probability `rate`.

    Both may change in training. A schedule of Keras serves as rate, for instance
    `keras.optimizers.schedules.CosineDecay(0.1, decay_steps=3000)`.

    Args:
        period: steps between two re-randomizations (K_per in the paper), a whole number of at least 0; 0 means never.
            Or a function that gives for the step of an event, and 0 at first, the steps until the next one, at least 1.
        rate: probability r in [0, 1] that a pruned entry is re-drawn; 0 means never, which is edge-popup. Or a function
            of the step.
        mode: what re-drawn entries become: `"draw"` their new draw, as in the paper, `"blend"` a mean of old and
            new value, see `Blended`, or `"recycle"` values of kept entries, see `recycled`. Or a function of
            (kernel, mask, fresh_kernel, seed), such as `Blended(old=0.9, new=0.1)`.
        last_step: no re-randomization happens after this step; None for no end.

    Example:

    >>> schedule = RerandomizationSchedule(lambda step: 100 + step, rate=0.1, last_step=800)
    >>> list(schedule.steps_between(0, 10_000))
    [100, 300, 700]
    """

    period: int | Callable[[int], int]
    rate: float | Callable[[int], Any]
    mode: str | Replacement = "draw"
    last_step: int | None = None
    _events: list[int] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self):
        if not callable(self.period):
            checks.whole_number("period", self.period, minimum=0)
        if not callable(self.rate):
            checks.number("rate", self.rate, minimum=0, maximum=1)
        if not callable(self.mode):
            checks.one_of("mode", self.mode, tuple(MODES))
        if self.last_step is not None:
            checks.whole_number("last_step", self.last_step, minimum=0)

    @property
    def replacement(self) -> Replacement:
        """The function of the mode."""
        return self.mode if callable(self.mode) else MODES[self.mode]

    def rate_at(self, step: int) -> float:
        """The probability at an event after a step."""
        rate = self.rate(step) if callable(self.rate) else self.rate
        if hasattr(rate, "__array__") and np.asarray(rate).dtype.kind == "f":
            # Schedules of Keras give tensors.
            rate = float(np.asarray(rate))
        return checks.number("rate", rate, minimum=0, maximum=1)

    def steps_between(self, start: int, stop: int) -> Sequence[int]:
        """The steps in (start, stop] after which a re-randomization happens; step 0 is never one."""
        if not self.period or not self.rate:
            return range(0)
        if self.last_step is not None:
            stop = min(stop, self.last_step)
        if not callable(self.period):
            return range((max(start, 0) // self.period + 1) * self.period, stop + 1, self.period)
        while not self._events or self._events[-1] <= stop:
            last = self._events[-1] if self._events else 0
            self._events.append(last + checks.whole_number("period", int(self.period(last)), minimum=1))
        return [event for event in self._events if start < event <= stop]


def redrawn_entries(mask: Any, rate: float, seed: int) -> Any:
    """Boolean tensor of the shape of `mask`: each pruned entry (mask 0) independently with probability `rate`."""
    mask = ops.convert_to_tensor(mask)
    chosen = keras.random.uniform(mask.shape, seed=seed, dtype="float32") < rate
    return ops.logical_and(mask == 0, chosen)


def rerandomize(kernel: Any, mask: Any, fresh_kernel: Any, rate: float, seed: int) -> Any:
    """Replaces each pruned entry of `kernel` (mask 0) by that of `fresh_kernel` with probability `rate`.

    Kept entries come back bit for bit; the same seed re-draws the same entries.
    """
    kernel = ops.convert_to_tensor(kernel)
    return ops.where(redrawn_entries(mask, rate, seed), fresh_kernel, kernel)
