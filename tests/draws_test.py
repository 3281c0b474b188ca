"""A seed gives the same kernels, scores, masks and re-draws in every version: digests of a table of layers.

tests/draws.json has the digests of version 0.2, so every figure that was recorded with it holds. Values of normal
distributions are left out, since their last bits differ between processors.
"""

import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest

from iterand_tf import RandomPruning, Subnet, SubnetConv2D, SubnetDense, Supermask, models, subnet_layers, to_subnet
from iterand_tf.rerandomization import MODES

DIGESTS = json.loads(pathlib.Path(__file__).with_name("draws.json").read_text())
SHAPES = {"vector": (2, 32), "sequence": (2, 6, 8), "image": (2, 8, 8, 4), "tokens": (2, 5)}
layers = keras.layers

# name: (makes the layer, its inputs)
STOCK = {
    "dense": (lambda: layers.Dense(16, name="a"), "vector"),
    "conv1d": (lambda: layers.Conv1D(8, 3, name="a"), "sequence"),
    "conv2d": (lambda: layers.Conv2D(8, 3, name="a"), "image"),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="a"), "image"),
    "separable": (lambda: layers.SeparableConv2D(8, 3, name="a"), "image"),
    "transpose": (lambda: layers.Conv2DTranspose(8, 4, strides=2, name="a"), "image"),
    "lstm": (lambda: layers.LSTM(8, name="a"), "sequence"),
    "bidirectional": (lambda: layers.Bidirectional(layers.GRU(8), name="a"), "sequence"),
    "attention": (lambda: layers.MultiHeadAttention(2, 4, name="a"), "sequence"),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 8), name="a"), "sequence"),
    "block": (
        lambda: keras.Sequential([layers.Dense(8, name="x"), layers.ReLU(), layers.Dense(4, name="y")], name="a"),
        "vector",
    ),
}
# name: parameters of Supermask
OPTIONS = {
    "abs": {"score_transform": "abs"},
    "min": {"min_per_channel": 5, "sparsity": 0.8},
    "2:4": {"mask": "2:4"},
    "1:8": {"mask": "1:8", "sparsity": 0.875},
}


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(np.asarray(array)).tobytes())
    return found.hexdigest()[:16]


def digests(subnets, modes=()):
    """Of kernels, masks, scores and baked kernels; and of the kernels after each of some re-draws."""
    kernels = [kernel for layer in subnets for kernel in layer.subnet_kernels]
    found = [
        digest(*[
            array
            for kernel in kernels
            for array in (kernel.variable, kernel.mask, kernel.scores, kernel.baked())
            if array is not None
        ])
    ]  # fmt: skip
    for step, mode in enumerate(modes, 1):
        for layer in subnets:
            layer.rerandomize(step, 0.5, MODES[mode])
        found.append(digest(*[kernel.variable for kernel in kernels]))
    return found


def called(layer, kind):
    inputs = np.ones(SHAPES[kind], "int32" if kind == "tokens" else "float32")
    layer(*[inputs] * (2 if isinstance(layer.layer, layers.MultiHeadAttention) else 1))
    return layer


def network():
    keras.utils.set_random_seed(0)
    hidden = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn"), layers.Flatten()]
    return keras.Sequential(
        [keras.Input((8, 8, 1)), *hidden, layers.Dense(6, name="hidden"), layers.Dense(2, name="head")]
    )


@pytest.mark.parametrize("name", STOCK)
def test_any_layer(name):
    make, kind = STOCK[name]
    layer = called(Subnet(make(), sparsity=0.6, seed=7), kind)
    assert digests([layer], ("draw", "blend", "recycle", "draw")) == DIGESTS[name]


def test_embeddings():
    layer = Subnet(layers.Embedding(20, 8, name="a"), sparsity=0.6, seed=7, kernel_names="embeddings")
    assert digests([called(layer, "tokens")], ["draw"]) == DIGESTS["embedding"]


@pytest.mark.parametrize("name", [name for name in DIGESTS if name.startswith("subnet_dense/")])
def test_distributions(name):
    _, weights, scores = name.split("/")
    method = Supermask(
        0.7, weight_distribution=weights, weight_scale=1.5, score_distribution=scores, score_scale=0.5
    )  # fmt: skip
    layer = called(SubnetDense(16, method=method, seed=3, name="d"), "vector")
    assert digests([layer], ["draw"] * 3) == DIGESTS[name]


def test_padded_convolution():
    layer = called(SubnetConv2D(8, 3, strides=2, padding=1, sparsity=0.5, seed=3, name="c"), "image")
    assert digests([layer], ["draw"] * 3) == DIGESTS["subnet_conv2d"]


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    layer = called(SubnetDense(16, seed=3, name="d", method=Supermask(**OPTIONS[name])), "vector")
    assert digests([layer], ["draw"] * 2) == DIGESTS[f"dense/{name}"]


def test_random_pruning():
    (kernel,) = called(Subnet(layers.Dense(16, name="a"), method=RandomPruning(0.6), seed=7), "vector").subnet_kernels
    assert [digest(kernel.scores, kernel.mask)] == DIGESTS["random_pruning"]


def test_converted_models():
    converted = to_subnet(network(), 0.6, seed=11, verbose=False)
    assert digests(subnet_layers(converted), ["draw"] * 2) == DIGESTS["to_subnet"]
    pruned = to_subnet(network(), 0.8, "magnitude_pruning", verbose=False)
    assert digests(subnet_layers(pruned)) == DIGESTS["to_subnet/magnitude_pruning"]
    ranked_together = to_subnet(network(), 0.6, Supermask(mask="global"), seed=11, verbose=False)
    assert digests(subnet_layers(ranked_together)) == DIGESTS["to_subnet/global"]


def test_networks():
    chosen = models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(Supermask(0.6), seed=5), width_factor=0.25)
    assert digests(subnet_layers(chosen), ["draw"]) == DIGESTS["models/conv2"]
    stock = models.build("conv2", (8, 8, 1), 10, models.StockFactory(seed=5), width_factor=0.25)
    assert [digest(*stock.trainable_variables)] == DIGESTS["models/conv2_stock"]
