"""Baking, on the way to an export: stock layers only, the same outputs, exact zeros."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import iterand_tf
from iterand_tf import bake


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            iterand_tf.SubnetConv2D(4, 3, strides=2, padding=1, activation="relu", use_bias=True),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            iterand_tf.SubnetDense(5, sparsity=0.8),
        ]
    )


def nested():
    image = keras.Input((8, 8, 3))
    shared = iterand_tf.SubnetDense(6, name="shared")
    features = keras.layers.Flatten()(sequential_features()(image))
    return keras.Model(image, keras.layers.Add()([shared(features), shared(features * 2)]))


def sequential_features():
    return keras.Sequential([keras.Input((8, 8, 3)), iterand_tf.SubnetConv2D(2, 3, padding="same")], name="inner")


def resnet():
    return iterand_tf.models.build("resnet18", (8, 8, 3), 5, width_factor=0.125)


def dense():
    """A network trained densely, whose initializers are this project's."""
    return iterand_tf.models.build("conv2", (8, 8, 3), 5, iterand_tf.models.StockFactory())


def ranked_together():
    method = iterand_tf.Supermask(0.7, mask="global")
    return iterand_tf.models.build("conv2", (8, 8, 3), 5, iterand_tf.models.SubnetFactory(method), 0.25)


def pruned():
    return iterand_tf.prune(dense(), {"head": 0.5, "*": iterand_tf.MagnitudePruning(0.8, mask="1:3")}, verbose=False)


def any_layers():
    steps = [keras.layers.Reshape((8, 24)), keras.layers.LSTM(5), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *steps])
    return iterand_tf.to_subnet(model, method=iterand_tf.Supermask(0.6, binarize=True), seed=0, verbose=False)


MODELS = {
    "sequential": sequential,
    "nested": nested,
    "resnet": resnet,
    "dense": dense,
    "ranked_together": ranked_together,
    "pruned": pruned,
    "any_layers": any_layers,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_the_same_outputs_from_stock_layers(model):
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    outputs = model(images)
    baked = bake(model)
    np.testing.assert_array_equal(baked(images), outputs)
    assert type(baked) is type(model)
    assert not iterand_tf.subnet_layers(baked)


def test_pruned_entries_are_positive_zeros(model):
    report = iterand_tf.sparsity_report(model)
    zeros = sum(layer.num_weights - layer.num_kept for layer in report.layers)
    kernels = [variable.numpy() for variable in bake(model).trainable_variables if variable.name.endswith("kernel")]
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == zeros
    assert not any(np.signbit(kernel[kernel == 0]).any() for kernel in kernels)


def test_baked_models_load_where_the_project_is_not_importable(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    models = {name: build() for name, build in MODELS.items()}
    for name, model in models.items():
        bake(model).save(tmp_path / f"{name}.keras")
    script = (
        "import sys, numpy as np, keras\n"
        "for name in sys.argv[1:]:\n"
        "    np.save(f'{name}.npy', keras.models.load_model(f'{name}.keras')(np.load('images.npy')))\n"
        "assert 'iterand_tf' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script, *models], cwd=tmp_path, check=True, capture_output=True)
    for name, model in models.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), model(images), err_msg=name)


class Block(keras.layers.Layer):
    """A user's layer with a Subnet layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = iterand_tf.SubnetDense(2)

    def call(self, inputs):
        return self.inner(inputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = iterand_tf.SubnetDense(2)

    def call(self, inputs):
        return self.head(inputs)


def test_refuses_what_it_cannot_bake():
    subclassed = Subclassed()
    subclassed(np.ones((1, 3)))
    for model in (subclassed, keras.Sequential([iterand_tf.SubnetDense(2)])):
        with pytest.raises(ValueError, match=r"functional or Sequential model|call the model"):
            bake(model)
    with pytest.raises(ValueError, match="Subnet layers inside"):
        bake(keras.Sequential([keras.Input((3,)), Block()]))
