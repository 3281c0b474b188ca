"""The masks of a model at the end of an epoch, and how many entries differ at the end of the next one."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from iterand_tf.layers import built_subnet_layers


class EpochMasks:
    """The masks of all Subnet layers of a model, kept on the device."""

    def __init__(self, model: keras.Model):
        kernels = [kernel for layer in built_subnet_layers(model) for kernel in layer.subnet_kernels]
        self.masks = [ops.cast(kernel.mask, "bool") for kernel in kernels]

    def flip_ratio(self, after: "EpochMasks") -> float:
        """The fraction of all mask entries that differ from later ones of the same model."""
        size = sum(math.prod(mask.shape) for mask in self.masks)
        return sum(self._flips(after)) / size if size else 0.0

    def flip_ratios(self, after: "EpochMasks") -> list[float]:
        """The same for each kernel."""
        flips = self._flips(after)
        return [number / math.prod(mask.shape) for number, mask in zip(flips, self.masks, strict=True)]

    def get_state(self) -> dict[str, np.ndarray]:
        """The masks as arrays of bits, to save in the midst of an epoch."""
        return {f"mask/{number:05}": np.packbits(ops.convert_to_numpy(mask)) for number, mask in enumerate(self.masks)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes the masks that `get_state` gave; other entries are ignored."""
        self.masks = [
            np.unpackbits(state[f"mask/{number:05}"], count=math.prod(mask.shape)).astype(bool).reshape(mask.shape)
            for number, mask in enumerate(self.masks)
        ]

    def _flips(self, after) -> list[Any]:
        return [
            int(ops.count_nonzero(ops.not_equal(old, new))) for old, new in zip(self.masks, after.masks, strict=True)
        ]
