"""The options of a subnetwork, declared once: the layers' arguments, the factory's, and the command line's flags."""

import dataclasses
from typing import Any

from keras import ops

from iterand_tf import distributions
from iterand_tf.checks import Options, option

SCORE_TRANSFORMS = {"identity": lambda scores: scores, "abs": ops.abs}


@dataclasses.dataclass(frozen=True)
class SubnetOptions(Options):
    """How a layer draws its kernel and its scores, and how many entries it keeps.

    The help lines of the fields say what each option does; `SubnetDense` documents them as arguments.

    Raises:
        ArgumentError: if a value is out of its range.

    Example:

    >>> SubnetOptions(sparsity=0.6).weight_distribution
    'signed_constant'
    """

    sparsity: float = option(0.5, "remove this fraction of each kernel", minimum=0, below=1)
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


def head_sparsity_option() -> Any:
    """The option of a network, rather than of a layer, that its classifier has a sparsity of its own."""
    return option(None, "remove this fraction of the classifier's kernel instead of --sparsity", minimum=0, below=1)


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(SubnetOptions))
