"""What only SubnetConv2D does: explicit padding, and errors of its arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stock_layers import stock_of

from iterand_tf import SubnetConv2D


@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
@pytest.mark.parametrize("strides", [1, 2])
def test_explicit_padding_is_zero_padding_before_a_valid_convolution(padding, strides):
    layer = SubnetConv2D(4, 3, strides=strides, padding=padding, sparsity=0.5, seed=0, name="mine", use_bias=True)
    inputs = tf.random.stateless_normal((2, 7, 8, 3), seed=(0, 1))
    outputs = layer(inputs)
    dense = stock_of(layer, inputs)
    assert [type(stock) for stock in dense.layers] == [keras.layers.ZeroPadding2D, keras.layers.Conv2D]
    assert dense.name == "mine"
    np.testing.assert_array_equal(dense(inputs), outputs)
    height, width = (padding, padding) if isinstance(padding, int) else padding
    padded = tf.pad(inputs, [(0, 0), (height, height), (width, width), (0, 0)])
    np.testing.assert_allclose(
        tf.nn.conv2d(padded, layer.subnet_kernels[0].baked(), strides, "VALID"), outputs, rtol=1e-5, atol=1e-6
    )
    assert layer.compute_output_shape((None, 7, 8, 3)) == (None, *outputs.shape[1:])
    assert SubnetConv2D.from_config(layer.get_config()).get_config() == layer.get_config()


def test_symmetric_padding_differs_from_same_at_stride_two():
    inputs = tf.random.stateless_normal((1, 8, 8, 3), seed=(0, 1))
    same, symmetric = (SubnetConv2D(2, 3, strides=2, padding=p, seed=0, name="x")(inputs) for p in ("same", 1))
    assert same.shape == symmetric.shape
    assert not np.allclose(same, symmetric)


def test_channels_first_shapes():
    layer = SubnetConv2D(4, 3, padding=1, data_format="channels_first")
    assert layer.compute_output_shape((None, 3, 8, 9)) == (None, 4, 8, 9)


@pytest.mark.parametrize("padding", ["full", -1, (1, 2, 3), (1, -1), 1.5, True])
def test_refuses_other_paddings(padding):
    with pytest.raises(ValueError, match="padding"):
        SubnetConv2D(4, 3, padding=padding)


def test_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="groups"):
        SubnetConv2D(4, 3, groups=3)
    with pytest.raises(ValueError, match="divisible by the number of groups"):
        SubnetConv2D(4, 3, groups=2).build((None, 8, 8, 3))
