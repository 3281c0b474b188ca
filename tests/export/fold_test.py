"""Folding: the same outputs, no BatchNormalization where the graph allows it, kernels as they were."""

import keras
import numpy as np
import pytest

import iterand_tf
from export.fold import Folded, fold_batch_normalization
from export.network import Network
from iterand_tf import bake

layers = keras.layers


def conv(**arguments):
    return layers.Conv2D(4, 3, padding="same", **arguments)


def sequential(*parts):
    return keras.Sequential([keras.Input((8, 8, 3)), *parts])


def residual():
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(conv()(image))
    return keras.Model(image, layers.ReLU()(x + layers.BatchNormalization()(conv(use_bias=False)(image))))


def nested():
    image = keras.Input((8, 8, 3))
    inner = sequential(conv(), layers.BatchNormalization(scale=False))
    return keras.Model(image, layers.BatchNormalization(center=False)(layers.Dense(2)(inner(image))))


def read_twice():
    image = keras.Input((8, 8, 3))
    x = conv()(image)
    return keras.Model(image, layers.BatchNormalization()(x) + x)


def an_output():
    image = keras.Input((8, 8, 3))
    x = conv()(image)
    return keras.Model(image, layers.concatenate([layers.BatchNormalization()(x), image]) + layers.ReLU()(x)[..., :1])


def shared_convolution():
    image, shared = keras.Input((8, 8, 3)), conv()
    return keras.Model(image, layers.BatchNormalization()(shared(image)) + shared(image * 2))


def shared_normalization():
    image, shared = keras.Input((8, 8, 3)), layers.BatchNormalization()
    return keras.Model(image, shared(conv()(image)) + shared(conv()(image)))


def shared_between_models():
    image, shared = keras.Input((8, 8, 3)), conv()
    first, second = (sequential(shared, layers.BatchNormalization()) for _ in range(2))
    return keras.Model(image, first(image) + second(image))


def masked():
    steps = keras.Input((8, 3))
    x = layers.BatchNormalization()(layers.Dense(4)(layers.Masking()(steps)))
    return keras.Model(steps, layers.LSTM(2)(x))


def with_lora():
    return sequential(layers.Flatten(), layers.Dense(5, lora_rank=2), layers.BatchNormalization())


# A row has the model, how many BatchNormalizations it has, and how many are folded.
CASES = {
    "conv": (lambda: sequential(conv(), layers.BatchNormalization()), 1, 1),
    "no bias": (lambda: sequential(conv(use_bias=False), layers.BatchNormalization(axis=3), layers.ReLU()), 1, 1),
    "dense": (lambda: sequential(layers.Flatten(), layers.Dense(5), layers.BatchNormalization()), 1, 1),
    "residual": (residual, 2, 2),
    "nested": (nested, 2, 2),
    "before the convolution": (lambda: sequential(layers.BatchNormalization(), conv()), 1, 0),
    "after an activation": (lambda: sequential(conv(activation="relu"), layers.BatchNormalization()), 1, 0),
    "of another axis": (lambda: sequential(conv(), layers.BatchNormalization(axis=1)), 1, 0),
    "read twice": (read_twice, 1, 0),
    "an output too": (an_output, 1, 0),
    "shared convolution": (shared_convolution, 1, 0),
    "shared normalization": (shared_normalization, 1, 0),
    "shared between models": (shared_between_models, 2, 0),
    "masked": (masked, 1, 1),
    "with LoRA": (with_lora, 1, 0),
    "mixed precision": (lambda: mixed(sequential), 1, 0),
}


def mixed(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    return build(conv(), layers.BatchNormalization())


def normalizations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]


@pytest.mark.parametrize("name", CASES)
def test_the_same_outputs_with_fewer_normalizations(name):
    build, before, folded = CASES[name]
    model = build()
    draw = np.random.default_rng(0)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            variable.assign(draw.uniform(0.5, 2.0, variable.shape))
    images = draw.normal(size=(3, *model.inputs[0].shape[1:])).astype(np.float32)
    result = fold_batch_normalization(model)
    assert len(normalizations(model)) == before
    assert len(normalizations(result.model)) == before - folded
    assert sum(isinstance(layer, Folded) for layer in result.model._flatten_layers()) == folded
    assert len(result.kernels) == folded
    np.testing.assert_allclose(result.model(images), model(images), rtol=1e-4)


def test_kernels_stay_ternary_beside_their_scales():
    model = iterand_tf.models.build("resnet18", (8, 8, 1), 10, width_factor=0.125)
    for layer in normalizations(model):
        layer.moving_variance.assign(np.random.default_rng(0).uniform(0.1, 2, layer.moving_variance.shape))
    network = Network.of(model)
    assert not normalizations(network.model)
    for kernel, trained in zip(network.kernels, iterand_tf.subnet_layers(model), strict=True):
        np.testing.assert_array_equal(kernel.values, trained.subnet_kernels[0].baked())
        assert len(np.unique(kernel.values)) == 3
        assert (kernel.scale is None) == (trained.name == "head")
        np.testing.assert_array_equal(kernel.variable, kernel.served)


def test_without_folding_the_kernels_are_those_of_the_baked_model():
    model = iterand_tf.models.build("resnet18", (8, 8, 1), 10, width_factor=0.125)
    network = Network.of(model, fold=False)
    assert len(normalizations(network.model)) == len(normalizations(bake(model))) == 21
    assert all(kernel.scale is None for kernel in network.kernels)
