"""to_subnet: any model, what is chosen from and what is left, and the way back."""

import keras
import numpy as np
import pytest

import iterand_tf
from export import bake
from iterand_tf import subnet_layers, to_subnet

layers = keras.layers
IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
LABELS = np.arange(8) % 4


def nested():
    shared = layers.Dense(6, name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="dense")], name="inner")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="dense")], name="other")
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    joined = layers.Add()([shared(inner(one)), other(two), shared(other(one))])
    return keras.Model([one, two], {"a": layers.Dense(2, name="a")(joined), "b": layers.Dense(3, name="b")(joined)})


@keras.saving.register_keras_serializable(package="test")
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.steps = [layers.Dense(units, activation="relu"), layers.Dense(2)]

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return inputs

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_nested_shared_and_several_inputs_and_outputs(tmp_path, capsys):
    model = nested()
    subnet = to_subnet(model, 0.5, seed=0)
    assert "5 layers with 114 kernel entries are chosen from" in capsys.readouterr().out
    assert sorted(layer.name for layer in subnet_layers(subnet)) == ["a", "b", "dense", "dense", "shared"]
    first, second = (layer for layer in subnet_layers(subnet) if layer.name == "dense")
    assert (first.subnet_kernels[0].variable.numpy() != second.subnet_kernels[0].variable.numpy()).any()
    assert [variable.name for variable in model.trainable_variables].count("kernel") == 5
    inputs = {"one": np.ones((2, 4), np.float32), "two": np.full((2, 4), -1, np.float32)}
    outputs, baked = subnet(inputs), bake(subnet)
    assert not any(subnet_layers(baked))
    for name in ("a", "b"):
        np.testing.assert_allclose(baked(inputs)[name], outputs[name], rtol=1e-5)
    subnet.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs)["a"], outputs["a"])
    again = to_subnet(model, 0.5, seed=0, verbose=False)
    np.testing.assert_array_equal(again(inputs)["a"], outputs["a"])


def test_a_subclassed_model():
    model = Subclassed()
    model(np.ones((2, 3)))
    subnet = to_subnet(model, 0.5, seed=1)
    inputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    subnet.compile("sgd", "mse")
    subnet.fit(inputs, np.ones((8, 2)), verbose=0, callbacks=[iterand_tf.Rerandomize(1, 0.5)])
    assert iterand_tf.sparsity_report(subnet).total.num_weights == 3 * 4 + 4 * 2
    np.testing.assert_allclose(bake(subnet)(inputs), subnet(inputs), rtol=1e-5)


def conv_net():
    steps = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn"), layers.Flatten()]
    return keras.Sequential(
        [keras.Input((8, 8, 1)), *steps, layers.Dense(4, name="hidden"), layers.Dense(2, name="head")]
    )


def test_sparsities_by_pattern_exclusions_and_frozen_layers(capsys):
    model = conv_net()
    model.get_layer("hidden").trainable = False
    subnet = to_subnet(model, {"conv*": 0.6, "hidden": 0.5, "head": 0.2}, exclude=["head"])
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("conv", 0.6)]
    printed = capsys.readouterr().out
    assert printed == (
        "to_subnet: 1 layers with 36 kernel entries are chosen from; left as they are: 2 without a kernel, "
        "1 not trainable, 1 excluded\n"
    )
    subnet = to_subnet(conv_net(), {"conv": 0.6}, verbose=False)
    assert [layer.name for layer in subnet_layers(subnet)] == ["conv"]


def test_what_is_not_a_kernel_is_copied():
    model = conv_net()
    model.get_layer("bn").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    model.get_layer("head").bias.assign([5.0, 6.0])
    subnet = to_subnet(model, verbose=False)
    np.testing.assert_array_equal(subnet.get_layer("bn").moving_mean, [1, 2, 3, 4])
    np.testing.assert_array_equal(subnet.get_layer("head").bias, [5, 6])


@pytest.mark.parametrize(
    ("model", "arguments", "sentence"),
    [
        (conv_net, {"sparsity": {"nothing*": 0.5}}, r"matches 'nothing\*'; the paths are conv, hidden, head"),
        (conv_net, {"exclude": ["nothing"]}, "no layer with a kernel has a path that matches 'nothing'"),
        (conv_net, {"sparsity": 1.0}, "sparsity must be at least 0 and below 1"),
        (conv_net, {"sparsity": {"conv": -1}}, r"sparsity\['conv'\] must be at least 0"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), {}, "needs a model that has kernels"),
        (lambda: to_subnet(conv_net(), verbose=False), {}, "is not converted twice"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "call the model on an input"),
    ],
)
def test_refuses_in_one_sentence(model, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_subnet(model(), **arguments)


# Every kind of its layers is trained and baked by a fast test.
@pytest.mark.slow
def test_a_network_of_keras_applications_trains_and_bakes():
    model = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(32, 32, 3), alpha=0.35)
    subnet = to_subnet(model, 0.5, seed=0, verbose=False)
    assert {layer.name for layer in subnet_layers(subnet)} >= {"Conv1", "expanded_conv_depthwise", "predictions"}
    subnet.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    subnet.fit(IMAGES, LABELS, batch_size=8, verbose=0, callbacks=[iterand_tf.Rerandomize(1, 0.1)])
    np.testing.assert_allclose(bake(subnet)(IMAGES), subnet(IMAGES), rtol=1e-4, atol=1e-6)
