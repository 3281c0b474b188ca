"""The options of a subnetwork, declared once: the layers' arguments, the factory's, and the command line's flags."""

import dataclasses
from typing import Any

from keras import ops

from iterand_tf import distributions, masks
from iterand_tf.checks import ArgumentError, Options, option

# With iterand the kernel is frozen and chosen from by trained scores; the others train the kernel itself.
KERNEL_METHODS = ("magnitude_pruning", "random_pruning")
METHODS = ("iterand", *KERNEL_METHODS)
SCORE_TRANSFORMS = {"identity": lambda scores: scores, "abs": ops.abs}


@dataclasses.dataclass(frozen=True)
class SubnetOptions(Options):
    """How a layer draws its kernel and its scores, and how many entries it keeps.

    The help lines of the fields say what each option does; `SubnetDense` documents them as arguments.

    Raises:
        ArgumentError: if a value is out of its range, or two do not go together.

    Example:

    >>> SubnetOptions(sparsity=0.6).weight_distribution
    'signed_constant'
    """

    sparsity: float = option(0.5, "remove this fraction of each kernel", minimum=0, below=1)
    method: str = option(
        "iterand",
        "choose from a frozen kernel by trained scores (iterand), or train the kernel and keep its largest entries "
        "(magnitude_pruning) or random ones (random_pruning)",
        choices=METHODS,
    )
    mask: str = option(
        masks.PER_KERNEL,
        "keep the entries with the highest scores of each kernel (per_kernel), of all kernels together (global), or N "
        "of every M neighbouring inputs (N:M, such as 2:4)",
    )
    min_per_channel: int = option(0, "keep at least so many inputs of each output of a kernel", minimum=0)
    binarize: bool = option(
        False, "compute with the signs of the kept entries, times one gain a kernel: their mean magnitude"
    )
    score_transform: str = option(
        "identity",
        "rank entries by their signed scores (identity) or by the scores' magnitudes (abs)",
        choices=tuple(SCORE_TRANSFORMS),
    )
    weight_distribution: str = option(
        "signed_constant", "draw the frozen kernels from this distribution", choices=distributions.NAMES
    )
    weight_scale: float = option(1.0, "multiply the frozen kernels by this factor", above=0)
    score_distribution: str = option(
        "kaiming_uniform", "draw the first scores from this distribution", choices=distributions.NAMES
    )
    score_scale: float = option(1.0, "multiply the first scores by this factor", above=0)

    def __post_init__(self):
        super().__post_init__()
        if self.binarize and self.method in KERNEL_METHODS:
            raise ArgumentError("binarize", f"False with method={self.method}, which trains the kernel", True)
        pattern = masks.parse_nm(self.mask)
        if pattern is None:
            return
        n, m = pattern
        if abs(self.sparsity - (1 - n / m)) > 1e-9:
            raise ArgumentError("sparsity", f"{1 - n / m:g} with mask={self.mask}", self.sparsity)
        if self.min_per_channel:
            raise ArgumentError("min_per_channel", f"0 with mask={self.mask}", self.min_per_channel)


def head_sparsity_option() -> Any:
    """The option of a network, rather than of a layer, that its classifier has a sparsity of its own."""
    return option(None, "remove this fraction of the classifier's kernel instead of --sparsity", minimum=0, below=1)


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(SubnetOptions))
