"""Re-drawing pruned kernel entries: when, which and how (Chijiwa et al., NeurIPS 2021, section 3, algorithm 1)."""

import dataclasses
from typing import Any

import keras
from keras import ops

from iterand_tf import checks


@dataclasses.dataclass(frozen=True)
class RerandomizationSchedule:
    """After every `period` steps each pruned entry is re-drawn with probability `rate`.

    Args:
        period: steps between two re-randomizations (K_per in the paper), a whole number of at least 0; 0 means never.
        rate: probability r in [0, 1] that a pruned entry is re-drawn; 0 means never, which is edge-popup.

    Raises:
        ValueError: if `period` or `rate` is out of range.

    Example:

    >>> from iterand_tf import RerandomizationSchedule
    >>> list(RerandomizationSchedule(period=300, rate=0.1).steps_between(299, 900))
    [300, 600, 900]
    """

    period: int
    rate: float

    def __post_init__(self):
        checks.whole_number("period", self.period, minimum=0)
        checks.number("rate", self.rate, minimum=0, maximum=1)

    def steps_between(self, start: int, stop: int) -> range:
        """The steps in (start, stop] after which a re-randomization happens; step 0 is never one."""
        if not self.period or not self.rate:
            return range(0)
        return range((max(start, 0) // self.period + 1) * self.period, stop + 1, self.period)


def redrawn_entries(mask: Any, rate: float, seed: int) -> Any:
    """Boolean tensor of the shape of `mask`: each pruned entry (mask 0) independently with probability `rate`.

    Example:

    >>> redrawn_entries([1.0, 0.0], rate=1.0, seed=0).numpy().tolist()
    [False, True]
    """
    mask = ops.convert_to_tensor(mask)
    chosen = keras.random.uniform(mask.shape, seed=seed, dtype="float32") < rate
    return ops.logical_and(mask == 0, chosen)


def rerandomize(kernel: Any, mask: Any, fresh_kernel: Any, rate: float, seed: int) -> Any:
    """Replaces each pruned entry of `kernel` by that of `fresh_kernel` with probability `rate`.

    Args:
        kernel: the frozen kernel.
        mask: 0/1 tensor of the same shape, 1 = kept.
        fresh_kernel: a new draw of the same shape and dtype.
        rate: probability in [0, 1].
        seed: whole number of at least 0; the same seed re-draws the same entries.

    Returns:
        A tensor like `kernel`. Kept entries come back bit for bit.

    Example:

    >>> rerandomize([1.0, 2.0], [1.0, 0.0], [7.0, 8.0], rate=1.0, seed=0).numpy().tolist()
    [1.0, 8.0]
    """
    return ops.where(redrawn_entries(mask, rate, seed), fresh_kernel, kernel)
