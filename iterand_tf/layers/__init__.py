"""Keras layers that hold frozen random kernels and trainable scores."""

from iterand_tf.layers.global_masks import GlobalMasks
from iterand_tf.layers.subnet import Subnet, built_subnet_layers, subnet_layers
from iterand_tf.layers.subnet_conv2d import SubnetConv2D
from iterand_tf.layers.subnet_dense import SubnetDense
from iterand_tf.layers.subnet_kernel import SubnetKernel

__all__ = [
    "GlobalMasks",
    "Subnet",
    "SubnetConv2D",
    "SubnetDense",
    "SubnetKernel",
    "built_subnet_layers",
    "subnet_layers",
]
