"""Exports of models that cannot be baked into stock layers: subclassed ones, and Subnet layers inside wrappers."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import export
import iterand_tf
from iterand_tf.errors import ExportError
from iterand_tf.layers import SubnetKernel

IMAGES = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = iterand_tf.SubnetDense(7, sparsity=0.6, use_bias=True, activation="relu", seed=1, name="inner")
        self.normalization = keras.layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.normalization(self.inner(inputs), training=training)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.flatten = keras.layers.Flatten()
        self.stock = keras.layers.Dense(6)
        self.dropout = keras.layers.Dropout(0.5)
        self.head = iterand_tf.SubnetDense(3, seed=2, name="head")

    def call(self, inputs):
        return self.head(self.dropout(self.stock(self.flatten(self.block(inputs)))))


def subclassed():
    model = Subclassed()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.arange(5) % 3, epochs=2, verbose=0, callbacks=[iterand_tf.Rerandomize(1, 0.5)])
    return model


def with_layers_that_cannot_be_cloned():
    steps = keras.Input((6, 4))
    normalization = keras.layers.Normalization()
    normalization.adapt(IMAGES * 3 + 1)
    x = keras.layers.Lambda(lambda x: x * 2)(iterand_tf.SubnetDense(7, seed=1)(normalization(steps)))
    return keras.Model([steps], iterand_tf.SubnetDense(3, seed=2)(keras.layers.Flatten()(x)))


def adapted():
    normalization = keras.layers.Normalization()
    normalization.adapt(IMAGES * 3 + 1)
    return keras.Sequential(
        [keras.Input((6, 4)), normalization, keras.layers.Flatten(), iterand_tf.SubnetDense(3, seed=2)]
    )


def half_precision():
    layers = [iterand_tf.SubnetDense(40, seed=1, dtype="bfloat16"), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((6, 4)), *layers, iterand_tf.SubnetDense(3, seed=2, dtype="bfloat16")])


def wrapped():
    inner = iterand_tf.SubnetDense(7, sparsity=0.6, seed=1, name="inner")
    layers = [keras.layers.TimeDistributed(inner), Block(), keras.layers.Flatten(), iterand_tf.SubnetDense(3, seed=2)]
    return keras.Sequential([keras.Input((6, 4)), *layers])


# So many kernel entries are those of stock layers.
STOCK = {subclassed: 6 * 7 * 6}


@pytest.mark.parametrize("build", [subclassed, wrapped, adapted, with_layers_that_cannot_be_cloned, half_precision])
@pytest.mark.parametrize("export_format", ["packed", "dense", "tflite", "onnx"])
def test_answers_as_the_trained_model(build, export_format, tmp_path):
    model = build()
    before = [variable.numpy() for variable in model.variables]
    expected = np.asarray(model(IMAGES)).astype(np.float32)
    if export_format == "onnx":
        pytest.importorskip("tf2onnx")
    if build is half_precision and export_format in ("tflite", "onnx"):
        with pytest.raises(ExportError, match="cannot express this network"):
            export.export_saved_model(model, tmp_path, sample=IMAGES, formats=export_format)
        return
    says_why = (
        pytest.warns(UserWarning, match="the layer lambda.* cannot be made again")
        if (build is with_layers_that_cannot_be_cloned)
        else contextlib.nullcontext()
    )
    with says_why:
        result = export.export_saved_model(model, tmp_path, sample=IMAGES, formats=export_format)
    assert result.max_abs_difference < 1e-5
    assert result.num_weights == sum(layer.num_weights for layer in iterand_tf.subnet_layers(model)) + STOCK.get(
        build, 0
    )
    np.testing.assert_array_equal(np.asarray(model(IMAGES)).astype(np.float32), expected)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    if export_format in ("packed", "dense"):
        signature = tf.saved_model.load(str(result.path)).signatures["serving_default"]
        graph = signature.graph.as_graph_def()
        operations = {node.op for function in graph.library.function for node in function.node_def}
        # No masks are computed when it is served.
        assert not {"TopKV2", "While", "StatelessWhile"} & operations


def test_kernels_of_a_subclassed_model_are_packed(tmp_path):
    model = subclassed()
    result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    assert result.num_weights == 4 * 7 + 6 * 7 * 6 + 6 * 3
    dense = model.stock.kernel.numpy().nbytes
    assert dense <= result.kernel_bytes < dense + 4 * (4 * 7 + 6 * 3)


def test_a_subclassed_model_needs_a_sample(tmp_path):
    for model, arguments in ((Subclassed(), {"sample": IMAGES}), (subclassed(), {})):
        with pytest.raises(ValueError, match="needs a sample"):
            export.export_saved_model(model, tmp_path, **arguments)


def test_a_difference_is_refused(tmp_path, monkeypatch):
    model = subclassed()
    monkeypatch.setattr(SubnetKernel, "baked", lambda kernel: kernel.variable)
    with pytest.raises(ExportError, match="reloaded outputs differ"):
        export.export_saved_model(model, tmp_path, sample=IMAGES)
    assert not list(tmp_path.iterdir())
