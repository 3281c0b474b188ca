"""Method, the base of the methods: how many entries of a kernel are kept, and in which pattern."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from keras import ops

from iterand_tf.checks import ArgumentError, Options, option
from iterand_tf.masks import PER_KERNEL, nm_mask, num_kept, parse_nm, protect_largest


@dataclasses.dataclass(frozen=True)
class Method(Options, abc.ABC):
    """How a layer chooses the entries of its kernels that it keeps.

    A method is a value: it never changes, and two of the same parameters are equal. A new method is a subclass that is
    registered with Keras, and a line in `iterand_tf.methods.METHODS`.

    Args:
        sparsity: fraction of each kernel that is removed, in [0, 1). Exactly `round(sparsity * size)` entries are.
        mask: `"per_kernel"` keeps the highest scores of each kernel. `"global"` ranks the kernels of a model together,
            so each gets a share of what is kept; `set_sparsity`, `SparsityScheduler` and `to_subnet` share it out.
            `"N:M"`, such as `"2:4"`, keeps at most N of every M neighbouring inputs of an output, and of those the
            highest scores of the kernel; its sparsity is at least `1 - N / M`.
        min_per_channel: each output keeps at least this many inputs, a whole number of at least 0.

    Attributes:
        trains_kernel: whether the optimizer trains the kernel. If not, the kernel is frozen, and the method draws it.
        has_scores: whether there are scores to rank; they are trained where the kernel is not.

    Raises:
        ArgumentError: if a parameter is out of its range, or two do not go together.
    """

    trains_kernel: ClassVar[bool]
    has_scores: ClassVar[bool]

    sparsity: float = option(0.5, "remove this fraction of each kernel", minimum=0, below=1)
    mask: str = option(
        PER_KERNEL,
        "keep the entries with the highest scores of each kernel (per_kernel), of all kernels together (global), or N "
        "of every M neighbouring inputs (N:M, such as 2:4)",
    )
    min_per_channel: int = option(0, "keep at least so many inputs of each output of a kernel", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if pattern := parse_nm(self.mask):
            n, m = pattern
            if self.sparsity < 1 - n / m - 1e-9:
                raise ArgumentError("sparsity", f"at least {1 - n / m:g} with mask={self.mask}", self.sparsity)
            if self.min_per_channel:
                raise ArgumentError("min_per_channel", f"0 with mask={self.mask}", self.min_per_channel)

    def first_kernel(self, shape: tuple[int, ...], fan_in: int, seed: int) -> Any:
        """A float32 draw of the kernel from a seed, for a method that freezes kernels."""

    def first_scores(self, shape: tuple[int, ...], fan_in: int, seed: int) -> Any:
        """The float32 scores that training begins with, for a method that has scores."""

    @abc.abstractmethod
    def ranked(self, kernel: Any, scores: Any) -> Any:
        """Float32 tensor of the kernel's shape whose largest entries are kept.

        Args:
            kernel: the kernel, a tensor.
            scores: the scores, a tensor, or None for a method without scores.
        """

    def values(self, kernel: Any, mask: Any) -> Any:
        """What the kept entries compute with: by default the kernel as it is."""
        return kernel

    def with_pattern(self, ranked: Any, axes: Sequence[int]) -> Any:
        """What `ranked` gives, so changed that the largest entries fit the pattern of the mask.

        Args:
            ranked: float32 tensor of a static shape.
            axes: of the kernel that an output sums over.
        """
        if pattern := parse_nm(self.mask):
            return ops.where(nm_mask(ranked, *pattern, axes) > 0, ranked, -float("inf"))
        return protect_largest(ranked, self.min_per_channel, axes) if self.min_per_channel else ranked

    def limits(self, shape: tuple[int, ...], axes: Sequence[int], owner: str) -> tuple[int, int]:
        """The fewest and the most entries of a kernel that the pattern lets it keep.

        Args:
            shape: of the kernel.
            axes: of the kernel that an output sums over.
            owner: the name of the kernel's layer, for errors.

        Raises:
            ValueError: if the pattern does not fit the kernel.
        """
        size, num_inputs = math.prod(shape), math.prod(shape[axis] for axis in axes)
        if pattern := parse_nm(self.mask):
            n, m = pattern
            if num_inputs % m:
                raise ValueError(
                    f"mask={self.mask} needs kernels whose inputs {m} divides, and {owner} has {num_inputs}; leave "
                    f"that layer out. Received: kernel shape={shape}"
                )
            return 0, size // m * n
        least = self.min_per_channel
        fewest = size + 1 if least > num_inputs else least * (size // max(num_inputs, 1))
        if fewest > num_kept(size, self.sparsity):
            raise ValueError(
                f"min_per_channel={least} keeps more than a sparsity of {self.sparsity} leaves of the kernel of "
                f"{owner}; lower one of them. Received: kernel shape={shape}"
            )
        return fewest, size

    def num_kept(self, shape: tuple[int, ...], axes: Sequence[int], owner: str) -> int:
        """Number of entries that are kept of a kernel; arguments and errors are those of `limits`."""
        _, most = self.limits(shape, axes, owner)
        return min(num_kept(math.prod(shape), self.sparsity), most)

    def get_config(self) -> dict[str, Any]:
        """The parameters by name, as Keras saves them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)
