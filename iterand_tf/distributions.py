"""Random kernels: the distributions of the frozen kernels and of the first scores.

Sources: signed constant from Ramanujan et al., CVPR 2020 (edge-popup), section 4.4; Kaiming uniform and normal from
He et al., ICCV 2015; U(-1, 1) is the distribution of the theorem in Chijiwa et al., NeurIPS 2021, section 4.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from iterand_tf import checks

NAMES = ("signed_constant", "kaiming_uniform", "kaiming_normal", "uniform")


def sample(name: str, shape: Sequence[int], seed: int, scale: float = 1.0, fan_in: int | None = None) -> Any:
    """Draws a float32 kernel; the same arguments give the same values.

    The entries are

    - `"signed_constant"`: `+-scale * sqrt(2 / fan_in)`, either sign with probability 1/2;
    - `"kaiming_uniform"`: uniform in `+-scale * sqrt(6 / fan_in)`;
    - `"kaiming_normal"`: normal with standard deviation `scale * sqrt(2 / fan_in)`;
    - `"uniform"`: uniform in `+-scale`.

    Args:
        name: one of `NAMES`.
        shape: the kernel's shape in Keras's order, output channels last.
        seed: whole number of at least 0.
        scale: factor on the values, above 0.
        fan_in: inputs that an output sums over; None for the product of all dimensions but the last.

    Raises:
        ValueError: if `name` or `scale` is out of range.

    Example:

    >>> sample("signed_constant", (2, 1), seed=0).shape
    TensorShape([2, 1])
    """
    checks.one_of("name", name, NAMES)
    checks.number("scale", scale, above=0)
    shape = tuple(shape)
    size = magnitude(name, scale, max(math.prod(shape[:-1]), 1) if fan_in is None else fan_in)
    if name == "signed_constant":
        positive = keras.random.uniform(shape, seed=seed, dtype="float32") < 0.5
        return ops.where(positive, ops.cast(size, "float32"), ops.cast(-size, "float32"))
    if name == "kaiming_normal":
        return keras.random.normal(shape, stddev=size, seed=seed, dtype="float32")
    return keras.random.uniform(shape, -size, size, seed=seed, dtype="float32")


def magnitude(name: str, scale: float, fan_in: int) -> float:
    """The constant of signed constants, the bound of uniform values, or the standard deviation of normal ones.

    Example:

    >>> magnitude("kaiming_uniform", scale=1.0, fan_in=6)
    1.0
    """
    if name == "uniform":
        return scale
    return scale * math.sqrt((6 if name == "kaiming_uniform" else 2) / fan_in)
