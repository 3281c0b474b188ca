"""Weights kept and removed, layer by layer."""

import dataclasses

import keras

from iterand_tf.layers import built_subnet_layers
from iterand_tf.text_table import text_table


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """The numbers of one kernel of a Subnet layer: entries in all and kept."""

    name: str
    shape: tuple[int, ...]
    num_weights: int
    num_kept: int

    @property
    def sparsity(self) -> float:
        """Fraction removed."""
        return 1 - self.num_kept / self.num_weights if self.num_weights else 0.0


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """The Subnet layers in the model's order, their totals, and as `str()` a table of both."""

    layers: tuple[LayerSparsity, ...]

    @property
    def total(self) -> LayerSparsity:
        num_weights = sum(layer.num_weights for layer in self.layers)
        return LayerSparsity("total", (), num_weights, sum(layer.num_kept for layer in self.layers))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "kernel", "weights", "kept", "removed", "sparsity")]
        for layer in (*self.layers, self.total):
            removed = layer.num_weights - layer.num_kept
            counts = (f"{number:,}" for number in (layer.num_weights, layer.num_kept, removed))
            rows.append((layer.name, "x".join(map(str, layer.shape)), *counts, f"{layer.sparsity:.4f}"))
        return text_table(rows)


def sparsity_report(model: keras.Model) -> SparsityReport:
    """Reports the weights kept and removed of every Subnet layer that has been built.

    Args:
        model: a model; layers in it that no call has used have no kernel and are left out.

    Returns:
        The layers in the model's order; printed, it is a table.

    Example:

    >>> import iterand_tf, keras
    >>> from iterand_tf import sparsity_report
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(5, sparsity=0.75, name="head")])
    >>> print(sparsity_report(model))
    layer  kernel  weights  kept  removed  sparsity
    head   4x5          20     5       15    0.7500
    total               20     5       15    0.7500
    """
    return SparsityReport(
        tuple(
            LayerSparsity(_name(layer, kernel), kernel.shape, kernel.num_weights, kernel.num_kept)
            for layer in built_subnet_layers(model)
            for kernel in layer.subnet_kernels
        )
    )


def _name(layer, kernel):
    """The layer's name, and where it has several kernels which of them."""
    if len(layer.subnet_kernels) == 1:
        return layer.name
    return f"{layer.name}/{layer.subnet_kernels.index(kernel)}_{kernel.name}"
