"""Packed kernels, unpacked as they are when a SavedModel is loaded."""

import keras
import numpy as np

from export.network import Kernel
from export.pack import PackedKernel
from export.unpack import PackedKernels


def unpacked(packed: PackedKernel, kernel: np.ndarray) -> np.ndarray:
    """What comes out of a packed kernel.

    Args:
        packed: the kernel.
        kernel: what is to come out.
    """
    (variable,) = PackedKernels([packed], [Kernel(keras.Variable(kernel, name="kernel"), kernel)], []).variables
    return variable.numpy()
