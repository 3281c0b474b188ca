"""Keras masks through Subnet layers: what the stock layer answers, and what the baked model does."""

import keras
import numpy as np
from stock_layers import stock_of

import iterand_tf
from iterand_tf import bake

STEPS = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
STEPS[:, 3:] = 0
TOKENS = np.array([[3, 1, 2, 0, 0], [4, 4, 0, 0, 0]])


def test_a_mask_passes_to_the_layer_behind_as_through_the_stock_layer():
    subnet = iterand_tf.SubnetDense(4, seed=0)
    subnet.build((None, 5, 3))
    outputs = []
    for layer in (subnet, stock_of(subnet, STEPS)):
        layers = [keras.layers.Masking(), layer, keras.layers.GlobalAveragePooling1D()]
        outputs.append(keras.Sequential([keras.Input((5, 3)), *layers])(STEPS))
    np.testing.assert_allclose(*outputs, rtol=1e-5)
    unmasked = keras.ops.mean(subnet(STEPS), axis=1)
    assert np.abs(unmasked - outputs[0]).max() > 0.01


def test_a_baked_model_treats_masks_as_the_model_does():
    layers = [keras.layers.Embedding(6, 3, mask_zero=True), iterand_tf.SubnetDense(4, seed=0), keras.layers.LSTM(4)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    np.testing.assert_allclose(bake(model)(TOKENS), model(TOKENS), rtol=1e-5)
    padded = np.concatenate([TOKENS, np.zeros_like(TOKENS)], axis=1)
    longer = keras.Sequential([keras.Input((10,)), *layers])
    np.testing.assert_allclose(longer(padded), model(TOKENS), rtol=1e-5)
