"""The sparsity of a whole model, and how kernels that are ranked together share what is kept."""

import keras
from keras import ops

from iterand_tf.layers.subnet import built_subnet_layers, subnet_layers
from iterand_tf.masks import GLOBAL, masks_of_largest, num_kept


def set_sparsity(model: keras.layers.Layer, sparsity: float) -> None:
    """Changes the sparsity of all Subnet layers of a model, from the next call on and without new traces.

    Kernels with `mask="global"` are ranked together here, and each keeps its share: the entries that are among the
    largest of all. A layer that is not trainable keeps the number it has, and takes no part in the ranking. Until the
    next call of `set_sparsity`, or event of `SparsityScheduler`, the shares stay.

    Args:
        model: a model with Subnet layers.
        sparsity: fraction that is removed of each kernel, or of all together where they share, in [0, 1).

    Raises:
        ValueError: if the model has no Subnet layer, or the sparsity is out of its range or does not fit a mask;
            nothing has changed then.

    Reference:
        Blalock et al., MLSys 2020, section 2.3, for global pruning.

    Example:

    >>> from iterand_tf import SubnetDense, set_sparsity, sparsity_report
    >>> model = keras.Sequential([keras.Input((4,)), SubnetDense(5)])
    >>> set_sparsity(model, 0.75)
    >>> sparsity_report(model).total.num_kept
    5
    """
    layers = subnet_layers(model)
    if not layers:
        raise ValueError(f"set_sparsity needs a model with Subnet layers. Received: model={model.name}")
    for layer in layers:
        layer.check_sparsity(sparsity)
    for layer in layers:
        before = [kernel.num_kept for kernel in layer.subnet_kernels]
        layer.set_sparsity(sparsity)
        if layer.method.mask == GLOBAL and not layer.trainable:
            for kernel, kept in zip(layer.subnet_kernels, before, strict=True):
                kernel.kept.assign(kept)
    share_kept(model)


def resume_sparsity(model: keras.layers.Layer, sparsity: float) -> None:
    """`set_sparsity` for a model that may have that sparsity already: then kernels keep the shares that they have."""
    kernels = _ranked_together(model)
    before = [kernel.num_kept for kernel in kernels]
    set_sparsity(model, sparsity)
    if sum(before) == sum(kernel.num_kept for kernel in kernels):
        for kernel, kept in zip(kernels, before, strict=True):
            kernel.kept.assign(kept)


def share_kept(model: keras.layers.Layer) -> None:
    """Shares out what is kept among the kernels with `mask="global"`, by one ranking over all of them."""
    kernels = _ranked_together(model)
    if not kernels:
        return
    if len(methods := {kernel.method for kernel in kernels}) > 1:
        raise ValueError(f"kernels that are ranked together have one method and one sparsity. Received: {methods}")
    kept = num_kept(sum(kernel.num_weights for kernel in kernels), kernels[0].method.sparsity)
    masks = masks_of_largest([kernel.ranked() for kernel in kernels], kept)
    for kernel, mask in zip(kernels, masks, strict=True):
        kernel.kept.assign(ops.cast(ops.count_nonzero(mask), "int32"))


def _ranked_together(model):
    layers = [layer for layer in built_subnet_layers(model) if layer.method.mask == GLOBAL and layer.trainable]
    return [kernel for layer in layers for kernel in layer.subnet_kernels]
