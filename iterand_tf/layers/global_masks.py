"""GlobalMasks, a model whose kernels are ranked together."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from iterand_tf.layers.subnet import built_subnet_layers
from iterand_tf.layers.subnet_kernel import SubnetKernel
from iterand_tf.masks import PER_KERNEL, masks_of_largest, num_kept

# Replicas of a distribution strategy are traced in threads of their own.
_computed = threading.local()


@keras.saving.register_keras_serializable(package="iterand_tf")
class GlobalMasks(keras.Model):
    """A functional model that keeps the highest scores of all its Subnet layers together.

    One threshold holds for all kernels, so the sparsity is exact for the network as a whole, and each kernel has its
    own. `to_subnet(model, mask="global")` and `models.SubnetFactory(mask="global")` make one. A call computes the masks
    once, and its layers share them.

    Args:
        inputs: as of a functional `keras.Model`.
        outputs: as of a functional `keras.Model`; all Subnet layers between have one sparsity.
        name: of the model.
        **kwargs: `trainable`.

    Raises:
        ValueError: if there is no Subnet layer, their sparsities differ, or one has an N:M mask.

    Reference:
        Blalock et al., MLSys 2020, section 2.3, call it global pruning.

    Example:

    >>> import keras
    >>> from iterand_tf import SubnetDense
    >>> inputs = keras.Input((8,))
    >>> hidden = SubnetDense(16, sparsity=0.75, seed=0, name="hidden")
    >>> model = GlobalMasks(inputs, SubnetDense(2, sparsity=0.75, seed=0, name="head")(hidden(inputs)))
    >>> sum(layer.num_kept for layer in model.layers[1:]), (8 * 16 + 16 * 2) // 4
    (40, 40)
    """

    # With the arguments of a functional model, keras.models.clone_model and from_config give this class again.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        layers = list(built_subnet_layers(self))
        if not layers:
            raise ValueError("mask='global' needs a model with Subnet layers that are built.")
        if len(sparsities := sorted({layer.sparsity for layer in layers})) > 1:
            raise ValueError(f"layers under one threshold have one sparsity. Received: {sparsities}")
        self._group = _Group([kernel for layer in layers for kernel in layer.subnet_kernels])
        self._group.share(layers[0].sparsity)

    def call(self, inputs, training=None, mask=None, **kwargs):
        with self._group.computed():
            return super().call(inputs, training=training, mask=mask, **kwargs)

    def set_sparsity(self, sparsity: float) -> None:
        """Changes the fraction of all kernel entries that is removed, from the next call on.

        Args:
            sparsity: in [0, 1).
        """
        for layer in built_subnet_layers(self):
            layer.set_sparsity(sparsity)
        self._group.share(sparsity)


class _Group:
    """Kernels that share one threshold."""

    def __init__(self, kernels: list[SubnetKernel]):
        self._kernels = kernels
        for kernel in kernels:
            if kernel.options.mask != PER_KERNEL:
                raise ValueError(
                    f"mask='global' ranks whole kernels. Received: a kernel with mask={kernel.options.mask!r}"
                )
            kernel.group = self

    @contextlib.contextmanager
    def computed(self) -> Iterator[None]:
        """Within, `mask_of` gives masks of the scores as they are now, which are computed once."""
        before = getattr(_computed, "masks", {})
        _computed.masks = before | self._masks()
        try:
            yield
        finally:
            _computed.masks = before

    def mask_of(self, kernel: SubnetKernel) -> Any:
        given = getattr(_computed, "masks", {}).get(id(kernel))
        return self._masks()[id(kernel)] if given is None else given

    def share(self, sparsity: float) -> None:
        """Lets the kernels' numbers add up to what is kept of all entries together."""
        ends = list(itertools.accumulate(kernel.num_weights for kernel in self._kernels))
        before = 0
        for kernel, end in zip(self._kernels, ends, strict=True):
            kernel.kept.assign(num_kept(end, sparsity) - before)
            before = num_kept(end, sparsity)

    def _masks(self):
        kept = sum(ops.convert_to_tensor(kernel.kept) for kernel in self._kernels)
        masks = masks_of_largest([kernel.ranked_scores() for kernel in self._kernels], kept)
        return {id(kernel): mask for kernel, mask in zip(self._kernels, masks, strict=True)}
