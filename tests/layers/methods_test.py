"""What a Subnet must do with each method and mask, run over a table; the stock layer is the oracle.

A new method or mask is covered by adding a row to METHODS.
"""

import contextlib
import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from mask_tables import pattern_oracle
from stock_layers import stock_of

import iterand_tf
from iterand_tf import MagnitudePruning, RandomPruning, Rerandomize, Subnet, SubnetDense, Supermask, masks
from iterand_tf.checks import ArgumentError
from iterand_tf.methods import METHODS as NAMES
from iterand_tf.methods import Method, resolve

layers = keras.layers

METHODS = {
    "supermask": Supermask(0.4),
    "abs": Supermask(0.4, score_transform="abs"),
    "magnitude_pruning": MagnitudePruning(0.4),
    "random_pruning": RandomPruning(0.4),
    "binarize": Supermask(0.4, binarize=True, weight_distribution="kaiming_uniform"),
    "min_per_channel": Supermask(0.5, min_per_channel=2),
    "pruned_min_per_channel": MagnitudePruning(0.5, min_per_channel=2),
    "n_of_m": Supermask(0.5, mask="1:2"),
    "pruned_n_of_m": MagnitudePruning(0.5, mask="1:2"),
    "fewer_than_n_of_m": Supermask(0.8, mask="1:2", score_transform="abs"),
    "pruned_fewer_than_n_of_m": MagnitudePruning(0.8, mask="1:2"),
    "random_n_of_m": RandomPruning(0.7, mask="1:2"),
}
# name: (makes the layer, shape of its input, axes of each kernel's inputs)
LAYERS = {
    "conv": (lambda: layers.Conv2D(4, 3, activation="relu"), (6, 6, 2), [(0, 1, 2)]),
    "transposed": (lambda: layers.Conv2DTranspose(4, 2), (5, 5, 2), [(0, 1, 3)]),
    "lstm": (lambda: layers.LSTM(4), (6, 4), [(0,), (0,)]),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="e"), (4, 6), [(0,)]),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def made(case, method):
    layer = Subnet(case[0](), method=method, seed=3, name="mine")
    inputs = tf.random.stateless_normal((8, *case[1]), seed=(1, 2))
    layer(inputs)
    return layer, inputs


def functional(case, method):
    layer, _ = made(case, method)
    inputs = keras.Input(case[1])
    return keras.Model(inputs, layers.Flatten()(layer(inputs))), layer


def what_is_ranked(method, kernel):
    """The test's own reading of what the methods say they rank."""
    if isinstance(method, MagnitudePruning):
        return np.abs(kernel.variable.numpy())
    scores = kernel.scores.numpy()
    return np.abs(scores) if getattr(method, "score_transform", "identity") == "abs" else scores


def assert_masks_are_those_of_the_oracle(case, layer, sparsity):
    method = layer.method
    for kernel, axes in zip(layer.subnet_kernels, case[2], strict=True):
        mask = kernel.mask.numpy()
        kept = kernel.num_weights - round(sparsity * kernel.num_weights)
        assert mask.sum() == kernel.num_kept == int(kernel.kept.numpy()) == kept
        pattern = masks.parse_nm(method.mask)
        expected = pattern_oracle(what_is_ranked(method, kernel), kept, axes, pattern, method.min_per_channel)
        np.testing.assert_array_equal(mask, expected)
        matrix = np.moveaxis(mask, axes, range(len(axes)))
        matrix = matrix.reshape(np.prod(matrix.shape[: len(axes)]), -1)
        assert (matrix.sum(axis=0) >= method.min_per_channel).all()
        if method.mask == "1:2":
            assert (matrix.reshape(-1, 2, matrix.shape[1]).sum(axis=1) <= 1).all()


def test_masks_are_those_of_an_oracle_that_sorts(case, method):
    layer, _ = made(case, method)
    assert_masks_are_those_of_the_oracle(case, layer, method.sparsity)


def test_another_sparsity_is_exact_too(case, method):
    layer, inputs = made(case, method)
    for sparsity in (0.3, 0.5, 0.45) if method.min_per_channel else (0.55, 0.9, 0.6):
        layer.set_sparsity(sparsity)
        assert layer.sparsity == layer.method.sparsity == sparsity
        assert_masks_are_those_of_the_oracle(case, layer, sparsity)
        np.testing.assert_allclose(layer(inputs), stock_of(layer, inputs)(inputs), rtol=1e-5, atol=1e-6)


def test_outputs_are_those_of_the_stock_layer_with_the_baked_kernels(case, method):
    layer, inputs = made(case, method)
    stock = stock_of(layer, inputs)
    np.testing.assert_allclose(layer(inputs), stock(inputs), rtol=1e-5, atol=1e-6)
    for kernel in layer.subnet_kernels:
        baked = kernel.baked().numpy()
        assert (baked[kernel.mask.numpy() == 0] == 0).all()
        kept = baked[kernel.mask.numpy() == 1]
        if getattr(method, "binarize", False):
            values = kernel.variable.numpy()[kernel.mask.numpy() == 1]
            np.testing.assert_allclose(kept, np.sign(values) * np.abs(values).mean(), rtol=1e-5)
        else:
            np.testing.assert_array_equal(kept, kernel.variable.numpy()[kernel.mask.numpy() == 1])


def test_what_is_trained_changes_and_nothing_else(case, method):
    model, layer = functional(case, method)
    frozen = isinstance(method, Supermask)
    names = [variable.name for variable in model.trainable_variables]
    assert sum(name.endswith("kernel") for name in names) == (0 if frozen else len(case[2]))
    assert sum(name.endswith("scores") for name in names) == (len(case[2]) if frozen else 0)
    before = [(kernel.variable.numpy(), kernel.mask.numpy()) for kernel in layer.subnet_kernels]
    inputs = np.random.default_rng(0).normal(size=(8, *case[1]))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(inputs, np.ones((8, model.output_shape[-1])), epochs=1, verbose=0)
    for kernel, (values, mask) in zip(layer.subnet_kernels, before, strict=True):
        changed = kernel.variable.numpy() != values
        if frozen:
            assert not changed.any()
        else:
            # A pruned entry has no part in the output, and so no gradient.
            assert changed[mask == 1].any()
            assert not changed[mask == 0].any()
    if isinstance(method, RandomPruning):
        for kernel, (_, mask) in zip(layer.subnet_kernels, before, strict=True):
            np.testing.assert_array_equal(kernel.mask, mask)


def test_trained_kernels_are_not_redrawn(case, method):
    layer, _ = made(case, method)
    before = [kernel.variable.numpy() for kernel in layer.subnet_kernels]
    changed = layer.rerandomize(step=1, rate=1.0)
    if isinstance(method, Supermask):
        assert changed > 0
    else:
        assert changed == 0
        for kernel, old in zip(layer.subnet_kernels, before, strict=True):
            np.testing.assert_array_equal(kernel.variable, old)


def test_a_saved_model_gives_the_same(case, method, tmp_path):
    model, layer = functional(case, method)
    layer.set_sparsity(sparsity := 0.45 if method.min_per_channel else 0.55)
    inputs = np.random.default_rng(0).normal(size=(3, *case[1])).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    (again,) = iterand_tf.subnet_layers(loaded)
    assert again.method == layer.method
    assert again.sparsity == sparsity


@pytest.mark.parametrize("jit_compile", [False, True])
def test_with_and_without_xla(method, jit_compile):
    layer, inputs = made(LAYERS["conv"], method)
    function = tf.function(layer.__call__, jit_compile=jit_compile, autograph=False)
    np.testing.assert_allclose(function(inputs), layer(inputs), rtol=1e-5, atol=1e-5)


def test_one_and_two_devices_train_alike(method, strategy_scope):
    case = LAYERS["conv"]

    def losses(scope):
        with scope():
            keras.utils.set_random_seed(0)
            model, _ = functional(case, method)
            model.compile(keras.optimizers.SGD(0.05), "mse")
        inputs = np.random.default_rng(0).normal(size=(4, *case[1]))
        targets = np.ones((4, model.output_shape[-1]))
        history = model.fit(inputs, targets, batch_size=4, epochs=3, shuffle=False, verbose=0)
        return history.history["loss"]

    np.testing.assert_allclose(losses(strategy_scope), losses(contextlib.nullcontext), rtol=1e-4)


def test_the_gradient_reaches_the_scores_straight_through():
    layer = SubnetDense(3, seed=0, method=METHODS["binarize"])
    inputs = tf.random.stateless_normal((5, 4), seed=(1, 2))
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs))
    upstream = tf.tile(tf.reduce_sum(inputs, axis=0)[:, tf.newaxis], (1, 3))
    gain = np.abs(layer.kernel.numpy())[layer.kernel_mask.numpy() == 1].mean()
    expected = upstream * gain * np.sign(layer.kernel)
    np.testing.assert_allclose(tape.gradient(loss, layer.scores), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: "pruning", "method must be one of supermask, magnitude_pruning, random_pruning"),
        (lambda: 0.5, "method must be one of supermask, .* or a method object"),
        (lambda: Supermask, "method must be one of supermask, .* or a method object"),
        (lambda: Supermask(mask="4:2"), "mask must be per_kernel, global or N:M"),
        (lambda: MagnitudePruning(0.4, mask="2:4"), "sparsity must be at least 0.5 with mask=2:4. Received: .*0.4"),
        (lambda: RandomPruning(mask="2:4", min_per_channel=1), "min_per_channel must be 0 with mask=2:4"),
        (
            lambda: Supermask(0.75, mask="1:4"),
            "mask=1:4 needs kernels whose inputs 4 divides, and mine has 6",
        ),
        (
            lambda: Supermask(min_per_channel=7),
            "min_per_channel=7 keeps more than a sparsity of 0.5 leaves of",
        ),
        (
            lambda: Supermask(0.9, min_per_channel=3),
            "min_per_channel=3 keeps more than a sparsity of 0.9 leaves of",
        ),
        (lambda: Supermask(min_per_channel=-1), "min_per_channel must be at least 0"),
        (lambda: MagnitudePruning(1.0), "sparsity must be at least 0 and below 1"),
        (lambda: RandomPruning("much"), "sparsity must be a number"),
    ],
)
def test_refuses_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        SubnetDense(4, name="mine", method=make()).build((1, 6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"score_transform": "square"},
        {"weight_distribution": "gaussian"},
        {"weight_scale": 0.0},
        {"score_distribution": "gaussian"},
        {"score_scale": -1.0},
        {"mask": "top"},
        {"min_per_channel": 0.5},
    ],
)
def test_methods_refuse_parameters_out_of_range(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ArgumentError, match=rf"^{name} must be .* Received: {name}=") as refused:
        Supermask(**wrong)
    assert (refused.value.name, refused.value.received) == (name, value)


@pytest.mark.parametrize("cls", [MagnitudePruning, RandomPruning])
@pytest.mark.parametrize("name", ["binarize", "score_transform", "weight_distribution", "score_scale"])
def test_the_pruning_methods_have_no_parameters_of_frozen_kernels(cls, name):
    assert [field.name for field in dataclasses.fields(cls)] == ["sparsity", "mask", "min_per_channel"]
    with pytest.raises(TypeError, match=name):
        cls(**{name: 1})


def test_a_sparsity_that_does_not_fit_the_mask_changes_nothing():
    layer = SubnetDense(4, method=MagnitudePruning(0.5, mask="2:4"))
    layer.build((None, 8))
    with pytest.raises(ValueError, match=r"sparsity must be at least 0.5 with mask=2:4"):
        layer.set_sparsity(0.4)
    assert (layer.sparsity, layer.num_kept, layer.kernel_mask.numpy().sum()) == (0.5, 16, 16)
    layer.set_sparsity(0.9)
    assert (layer.sparsity, layer.num_kept, layer.kernel_mask.numpy().sum()) == (0.9, 3, 3)


def test_the_least_of_each_output_is_kept_at_the_highest_sparsity():
    layer = SubnetDense(5, method=Supermask(0.5, min_per_channel=1), seed=0)
    layer.build((None, 8))
    with pytest.raises(ValueError, match=r"min_per_channel=1 keeps more than a sparsity of 0\.9 leaves"):
        layer.set_sparsity(0.9)
    assert (layer.sparsity, layer.num_kept) == (0.5, 20)
    layer.set_sparsity(0.875)
    np.testing.assert_array_equal(layer.kernel_mask.numpy().sum(axis=0), [1] * 5)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, 0.0, -3.4028235e38])
@pytest.mark.parametrize("sparsity", [0.5, 0.75])
def test_equal_scores_of_any_value_fit_the_pattern(sparsity, value):
    layer = SubnetDense(2, method=Supermask(sparsity, mask="1:2"), seed=0)
    layer.build((None, 8))
    layer.scores.assign(np.full((8, 2), value))
    mask = layer.kernel_mask.numpy()
    assert mask.sum() == layer.num_kept == 16 - round(sparsity * 16)
    assert (mask.reshape(4, 2, 2).sum(axis=1) <= 1).all()


def test_rerandomize_refuses_a_model_of_trained_kernels():
    for method in ("magnitude_pruning", "random_pruning"):
        model = keras.Sequential([keras.Input((4,)), SubnetDense(2, method=method)])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="whose kernels are frozen, as the method supermask makes them"):
            model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0, callbacks=[Rerandomize(1, 0.5)])


def test_every_method_is_in_the_table():
    assert {type(method) for method in METHODS.values()} == set(NAMES.values())
    assert {name: type(METHODS[name]) for name in NAMES} == NAMES
    assert all(issubclass(cls, Method) for cls in NAMES.values())


def test_methods_are_values(method):
    again = dataclasses.replace(method)
    assert again is not method
    assert {again, method, pickle.loads(pickle.dumps(method))} == {method}
    assert type(method).from_config(method.get_config()) == method
    config = keras.saving.serialize_keras_object(method)
    assert config["registered_name"] == f"iterand_tf>{type(method).__name__}"
    assert keras.saving.deserialize_keras_object(config) == resolve(config) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.sparsity = 0.9
    other = dataclasses.replace(method, sparsity=0.55)
    assert other != method
    assert other == resolve(method, 0.55) == resolve(method, other)


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        ({}, Supermask()),
        ({"sparsity": 0.3}, Supermask(0.3)),
        ({"method": "magnitude_pruning"}, MagnitudePruning(0.5)),
        ({"method": "random_pruning", "sparsity": 0.8}, RandomPruning(0.8)),
        ({"method": Supermask(0.7, binarize=True)}, Supermask(0.7, binarize=True)),
        ({"method": Supermask(0.7, binarize=True), "sparsity": 0.0}, Supermask(0.0, binarize=True)),
        ({"sparsity": MagnitudePruning(0.9)}, MagnitudePruning(0.9)),
    ],
    ids=str,
)
def test_the_short_ways_to_say_a_method(arguments, method):
    for layer in (SubnetDense(4, **arguments), Subnet(layers.Dense(4), **arguments)):
        assert layer.method == method
        assert layer.sparsity == method.sparsity


@pytest.mark.parametrize("cls", [MagnitudePruning, RandomPruning])
def test_trained_kernels_start_as_the_stock_layers(cls):
    def initializer():
        return keras.initializers.TruncatedNormal(seed=7)

    ours = SubnetDense(4, method=cls(), kernel_initializer=initializer(), kernel_regularizer="l2", name="mine")
    stock = layers.Dense(4, kernel_initializer=initializer(), kernel_regularizer="l2")
    for layer in (ours, stock):
        layer.build((None, 6))
    np.testing.assert_array_equal(ours.kernel, stock.kernel)
    np.testing.assert_allclose(ours.losses, stock.losses)
    kernels = []
    for make in (lambda: layers.Dense(4), lambda: SubnetDense(4, method=cls(), seed=3)):
        keras.utils.set_random_seed(5)
        layer = make()
        layer.build((None, 6))
        kernels.append(layer.kernel.numpy())
    np.testing.assert_array_equal(*kernels)


@keras.saving.register_keras_serializable(package="test")
@dataclasses.dataclass(frozen=True)
class SmallestMagnitudes(MagnitudePruning):
    """A user's method."""

    def ranked(self, kernel, scores):
        return -super().ranked(kernel, scores)


def test_a_method_of_ones_own(tmp_path):
    model = keras.Sequential([keras.Input((6,)), SubnetDense(4, method=SmallestMagnitudes(0.25))])
    layer = model.layers[0]
    magnitudes, mask = np.abs(layer.kernel.numpy()), layer.kernel_mask.numpy()
    assert mask.sum() == 18
    assert magnitudes[mask == 1].max() <= magnitudes[mask == 0].min()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].method == SmallestMagnitudes(0.25)
    inputs = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    np.testing.assert_allclose(iterand_tf.bake(model)(inputs), model(inputs), rtol=1e-6)
