"""Keras layers that compute with a part of their kernels."""

from iterand_tf.layers.sparsity import resume_sparsity, set_sparsity, share_kept
from iterand_tf.layers.subnet import Subnet, built_subnet_layers, subnet_layers
from iterand_tf.layers.subnet_conv2d import SubnetConv2D
from iterand_tf.layers.subnet_dense import SubnetDense
from iterand_tf.layers.subnet_kernel import SubnetKernel

__all__ = [
    "Subnet",
    "SubnetConv2D",
    "SubnetDense",
    "SubnetKernel",
    "built_subnet_layers",
    "resume_sparsity",
    "set_sparsity",
    "share_kept",
    "subnet_layers",
]
