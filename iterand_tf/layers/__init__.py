"""Keras layers that hold frozen random kernels and trainable scores."""

from iterand_tf.layers.subnet_conv2d import SubnetConv2D
from iterand_tf.layers.subnet_dense import SubnetDense
from iterand_tf.layers.subnet_layer import SubnetLayer, built_subnet_layers, subnet_layers

__all__ = ["SubnetConv2D", "SubnetDense", "SubnetLayer", "built_subnet_layers", "subnet_layers"]
