"""What Subnet must do to any Keras layer, run over a table; the stock layer is the oracle.

A new kind of layer is covered by adding a row to CASES.
"""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from stock_layers import stock_of

import iterand_tf
from iterand_tf import Subnet, Supermask

layers = keras.layers


@keras.saving.register_keras_serializable(package="test")
class UsersBlock(keras.layers.Layer):
    """A user's layer with sublayers in a list, some of which it makes when it is built."""

    def build(self, input_shape):
        self.steps = [layers.Dense(4, activation="relu"), layers.BatchNormalization(), layers.Dense(3)]
        for step in self.steps:
            step.build(input_shape)
            input_shape = step.compute_output_shape(input_shape)

    def call(self, inputs, training=None):
        for step in self.steps:
            inputs = step(inputs, training=training)
        return inputs


@keras.saving.register_keras_serializable(package="test")
class UsersModel(keras.Model):
    """A user's subclassed model, with layers in attributes and in a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, activation="relu")
        self.others = {"norm": layers.LayerNormalization(), "last": layers.Dense(3)}

    def call(self, inputs):
        return self.others["last"](self.others["norm"](self.first(inputs)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table.

    Args:
        make: makes the layer.
        shapes: of its inputs.
        fan_in: of each of its kernels.
        kernel_names: which of its variables are chosen from.
        tokens: the number of different whole numbers that it takes as inputs, or None for real numbers.
    """

    make: Callable[[], keras.layers.Layer]
    shapes: list[tuple[int, ...]]
    fan_in: list[int]
    kernel_names: tuple[str, ...] = ("*kernel",)
    tokens: int | None = None

    def inputs(self, batch):
        random = np.random.default_rng(0)
        if self.tokens:
            return [random.integers(0, self.tokens, (batch, *shape)).astype(np.int32) for shape in self.shapes]
        return [random.normal(size=(batch, *shape)).astype(np.float32) for shape in self.shapes]


CASES = {
    "dense": Case(lambda: layers.Dense(4, activation="relu"), [(5,)], [5]),
    "conv1d": Case(lambda: layers.Conv1D(4, 3), [(8, 5)], [15]),
    "depthwise": Case(lambda: layers.DepthwiseConv2D(3), [(6, 6, 2)], [9]),
    "separable": Case(lambda: layers.SeparableConv2D(4, 3), [(6, 6, 2)], [9, 2]),
    "transposed": Case(lambda: layers.Conv2DTranspose(4, 4, strides=2), [(5, 5, 2)], [8]),
    "einsum": Case(lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="e"), [(4, 5)], [5]),
    "lstm": Case(lambda: layers.LSTM(4, return_sequences=True), [(6, 3)], [3, 4]),
    "gru": Case(lambda: layers.GRU(4), [(6, 3)], [3, 4]),
    "bidirectional": Case(lambda: layers.Bidirectional(layers.LSTM(4)), [(6, 3)], [3, 4, 3, 4]),
    "time_distributed": Case(lambda: layers.TimeDistributed(layers.Dense(4)), [(6, 3)], [3]),
    "attention": Case(lambda: layers.MultiHeadAttention(2, 4), [(5, 8), (6, 8)], [8, 8, 8, 8]),
    "block": Case(
        lambda: keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Conv2D(2, 3)]),
        [(8, 8, 2)],
        [18, 36],
    ),
    "users_block": Case(UsersBlock, [(5,)], [5, 4]),
    "users_model": Case(UsersModel, [(5,)], [5, 4]),
    "embedding": Case(lambda: layers.Embedding(7, 4), [(6,)], [1], ("embeddings",), tokens=7),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def made(case, **options):
    """A Subnet of the case's layer that has been called, and its inputs; the options are those of Supermask."""
    method = Supermask(0.4, **options)
    layer = Subnet(case.make(), method=method, seed=3, name="mine", kernel_names=case.kernel_names)
    inputs = [tf.constant(each) for each in case.inputs(4)]
    layer(*inputs)
    return layer, inputs


def functional(case):
    layer, _ = made(case)
    inputs = [keras.Input(shape, dtype="int32" if case.tokens else None) for shape in case.shapes]
    outputs = keras.layers.Flatten()(layer(*inputs))
    return keras.Model(inputs, outputs), layer


def test_every_kernel_is_found_with_its_fan_in(case):
    layer, _ = made(case, weight_distribution="kaiming_uniform")
    assert [kernel.fan_in for kernel in layer.subnet_kernels] == case.fan_in
    for kernel in layer.subnet_kernels:
        bound = np.sqrt(6 / kernel.fan_in)
        assert 0.7 * bound < np.abs(kernel.variable.numpy()).max() <= bound
        assert kernel.mask.numpy().sum() == kernel.num_kept == kernel.num_weights - round(0.4 * kernel.num_weights)


def test_outputs_are_those_of_the_stock_layer_with_masked_kernels(case):
    layer, inputs = made(case)
    for kernel in layer.subnet_kernels:
        kernel.scores.assign(-kernel.scores)
    stock = stock_of(layer, *inputs)
    assert type(stock) is type(layer.layer)
    assert not any(iterand_tf.subnet_layers(stock))
    np.testing.assert_allclose(layer(*inputs), stock(*inputs), rtol=1e-5, atol=1e-6)
    zeros = sum(int((v.numpy() == 0).sum()) for v in stock.variables if v.name.endswith(("kernel", "embeddings")))
    assert zeros == sum(kernel.num_weights - kernel.num_kept for kernel in layer.subnet_kernels)


def test_scores_are_trained_and_kernels_are_not(case):
    model, layer = functional(case)
    kernels = [kernel.variable.numpy() for kernel in layer.subnet_kernels]
    scores = [kernel.scores.numpy() for kernel in layer.subnet_kernels]
    trained = [variable.name for variable in model.trainable_variables]
    assert sum(name.endswith("scores") for name in trained) == len(kernels)
    assert not any(name.endswith(("kernel", "embeddings")) for name in trained)
    model.trainable = False
    model.trainable = True
    assert [variable.name for variable in model.trainable_variables] == trained
    model.compile(keras.optimizers.SGD(0.5), "mse")
    inputs = case.inputs(8)
    model.fit(inputs, np.ones((8, model.output_shape[-1])), epochs=3, verbose=0)
    for kernel, before, first in zip(layer.subnet_kernels, kernels, scores, strict=True):
        np.testing.assert_array_equal(kernel.variable, before)
        assert (kernel.scores.numpy() != first).any()


def test_rerandomize_takes_the_next_draw_for_pruned_entries(case):
    layer, inputs = made(case, weight_distribution="kaiming_uniform")
    outputs = layer(*inputs)
    before = [kernel.variable.numpy() for kernel in layer.subnet_kernels]
    changed = layer.rerandomize(step=10, rate=1.0)
    assert changed == sum(kernel.num_weights - kernel.num_kept for kernel in layer.subnet_kernels)
    for kernel, old in zip(layer.subnet_kernels, before, strict=True):
        np.testing.assert_array_equal(kernel.variable.numpy() != old, kernel.mask.numpy() == 0)
    np.testing.assert_allclose(layer(*inputs), outputs, rtol=1e-6)


def test_kernels_of_one_layer_are_drawn_apart(case):
    layer, _ = made(case, weight_distribution="kaiming_uniform")
    draws = [kernel.draw(0).numpy().ravel()[:3] * np.sqrt(kernel.fan_in) for kernel in layer.subnet_kernels]
    for index, draw in enumerate(draws):
        assert not any(np.allclose(draw, other) for other in draws[:index])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """For each row the outputs of a model, and those that a fresh process gets from its file; one for all rows."""
    directory = tmp_path_factory.mktemp("saved")
    outputs = {}
    for name, case in CASES.items():
        model, layer = functional(case)
        for kernel in layer.subnet_kernels:
            kernel.scores.assign(-kernel.scores)
        layer.rerandomize(step=1, rate=0.5)
        model.save(directory / f"{name}.keras")
        inputs = case.inputs(3)
        np.savez(directory / f"{name}.npz", *inputs)
        outputs[name] = model(inputs).numpy()
    script = (
        "import pathlib, sys, numpy as np, keras\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "import any_layer_test\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
        "    model = keras.models.load_model(path)\n"
        "    with np.load(path.with_suffix('.npz')) as inputs:\n"
        "        np.save(path.with_suffix('.npy'), model([inputs[name] for name in inputs.files]))\n"
    )
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-c", script, str(directory), str(here), str(here.parent), str(here.parents[1])]
    subprocess.run(command, check=True, capture_output=True)
    return {name: (output, np.load(directory / f"{name}.npy")) for name, output in outputs.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_loads_in_a_fresh_process(name, saved):
    ours, loaded = saved[name]
    np.testing.assert_array_equal(loaded, ours)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_as_the_stock_layer(case, precision):
    keras.config.set_dtype_policy(precision)
    layer, inputs = made(case)
    assert all(kernel.scores.dtype == kernel.variable.dtype == "float32" for kernel in layer.subnet_kernels)
    outputs, expected = layer(*inputs), stock_of(layer, *inputs)(*inputs)
    assert outputs.dtype == expected.dtype
    np.testing.assert_allclose(np.float32(outputs), np.float32(expected), rtol=0.02, atol=0.02)


# The others repeat what these show: one kernel, several, two inputs, and sublayers with statistics.
ON_TWO_DEVICES = ("separable", "lstm", "attention", "users_block")


@pytest.mark.parametrize(
    "name", [name if name in ON_TWO_DEVICES else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_trains_to_the_same_losses_on_one_and_on_two_devices(name, strategy_scope):
    case = CASES[name]

    def losses(scope):
        with scope():
            model, _ = functional(case)
            model.compile(keras.optimizers.SGD(0.05), "mse")
        inputs = case.inputs(4)
        targets = np.ones((4, model.output_shape[-1]))
        callbacks = [iterand_tf.Rerandomize(period=2, rate=0.5)]
        fit = model.fit(inputs, targets, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        return fit.history["loss"]

    # Each replica normalizes its own part of a batch.
    tolerance = 0.3 if name.endswith("block") else 1e-4
    np.testing.assert_allclose(losses(strategy_scope), losses(contextlib.nullcontext), rtol=tolerance)


def test_statistics_dropout_and_losses_stay_the_layers_own():
    inner = keras.Sequential(
        [layers.Dense(4, activity_regularizer="l2"), layers.BatchNormalization(), layers.Dropout(0.5)], name="block"
    )
    layer = Subnet(inner, 0.0, seed=1)
    inputs = tf.random.stateless_normal((64, 3), seed=(1, 2)) + 3
    outputs = layer(inputs, training=True)
    assert 0.3 < float(tf.reduce_mean(tf.cast(outputs == 0, tf.float32))) < 0.7
    (mean,) = (variable for variable in layer.variables if variable.name == "moving_mean")
    assert (mean.numpy() != 0).any()
    assert len(layer.losses) == 1
    assert float(tf.reduce_mean(tf.cast(layer(inputs) == 0, tf.float32))) < 0.1


def test_embeddings_are_chosen_from_when_asked():
    tokens = np.array([[1, 2, 0]])
    layer = Subnet(layers.Embedding(5, 4), kernel_names=("*kernel", "embeddings"), seed=0)
    assert layer(tokens).shape == (1, 3, 4)
    assert len(layer.subnet_kernels) == 1
    with pytest.raises(ValueError, match=r"no trainable variable .* pass other kernel_names.*\['embeddings'\]"):
        Subnet(layers.Embedding(5, 4), seed=0)(tokens)


def test_inside_other_wrappers(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    lstm = layers.Bidirectional(Subnet(layers.LSTM(4, return_sequences=True), seed=1))
    assert lstm(inputs).shape == (2, 6, 8)
    dense = layers.TimeDistributed(Subnet(layers.Dense(4), seed=1))
    assert dense(inputs).shape == (2, 6, 4)
    forward, backward = iterand_tf.subnet_layers(lstm)
    for one, other in zip(forward.subnet_kernels, backward.subnet_kernels, strict=True):
        assert (one.variable.numpy() != other.variable.numpy()).any()
    model = keras.Sequential([keras.Input((6, 3)), lstm, layers.TimeDistributed(Subnet(layers.Dense(4), seed=1))])
    for layer in iterand_tf.subnet_layers(model):
        layer.rerandomize(step=1, rate=0.5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layer": "dense"}, "layer must be a Keras layer"),
        ({"layer": iterand_tf.SubnetDense(2)}, "layer must be one without Subnet layers inside"),
        (
            {"layer": layers.TimeDistributed(iterand_tf.SubnetDense(2))},
            "layer must be one without Subnet layers inside",
        ),
        ({"layer": layers.Dense(2), "sparsity": 1.0}, "sparsity must be at least 0 and below 1"),
    ],
)
def test_refuses_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Subnet(**arguments)


def test_another_thread_makes_layers_of_its_own():
    """Half of the layers are Subnets, half stock; all are made at the same time."""

    def make(number):
        layer = layers.Dense(4) if number % 2 else Subnet(layers.Dense(4), seed=number)
        layer(np.ones((1, 3), np.float32))
        return layer

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        made_layers = list(threads.map(make, range(40)))
    for number, layer in enumerate(made_layers):
        expected = ["kernel", "bias"] if number % 2 else ["scores", "bias"]
        assert [variable.name for variable in layer.trainable_variables] == expected
    assert keras.layers.Layer.add_weight.__module__.startswith("keras.")
