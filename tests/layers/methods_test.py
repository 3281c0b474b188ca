"""What a Subnet must do with each method and mask, run over a table; the stock layer is the oracle.

A new method or mask is covered by adding a row to OPTIONS.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf import Rerandomize, Subnet, SubnetDense

layers = keras.layers

# name: arguments of Subnet
OPTIONS = {
    "iterand": {"method": "iterand", "sparsity": 0.4},
    "abs": {"score_transform": "abs", "sparsity": 0.4},
    "magnitude_pruning": {"method": "magnitude_pruning", "sparsity": 0.4},
    "random_pruning": {"method": "random_pruning", "sparsity": 0.4},
    "binarize": {"binarize": True, "sparsity": 0.4, "weight_distribution": "kaiming_uniform"},
    "min_per_channel": {"min_per_channel": 2, "sparsity": 0.5},
    "n_of_m": {"mask": "1:2", "sparsity": 0.5},
    "pruned_n_of_m": {"mask": "1:2", "sparsity": 0.5, "method": "magnitude_pruning"},
}
# name: (makes the layer, shape of its input, axes of each kernel's inputs)
LAYERS = {
    "conv": (lambda: layers.Conv2D(4, 3, activation="relu"), (6, 6, 2), [(0, 1, 2)]),
    "transposed": (lambda: layers.Conv2DTranspose(4, 2), (5, 5, 2), [(0, 1, 3)]),
    "lstm": (lambda: layers.LSTM(4), (6, 4), [(0,), (0,)]),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="e"), (4, 6), [(0,)]),
}


@pytest.fixture(params=OPTIONS)
def options(request):
    return OPTIONS[request.param]


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def made(case, options):
    layer = Subnet(case[0](), seed=3, name="mine", **options)
    inputs = tf.random.stateless_normal((8, *case[1]), seed=(1, 2))
    layer(inputs)
    return layer, inputs


def functional(case, options):
    layer, _ = made(case, options)
    inputs = keras.Input(case[1])
    return keras.Model(inputs, layers.Flatten()(layer(inputs))), layer


def test_counts_are_exact_and_structured(case, options):
    layer, _ = made(case, options)
    for kernel, axes in zip(layer.subnet_kernels, case[2], strict=True):
        mask = kernel.mask.numpy()
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.sum() == kernel.num_kept == kernel.num_weights - round(options["sparsity"] * kernel.num_weights)
        matrix = np.moveaxis(mask, axes, range(len(axes)))
        matrix = matrix.reshape(np.prod(matrix.shape[: len(axes)]), -1)
        assert (matrix.sum(axis=0) >= options.get("min_per_channel", 0)).all()
        if options.get("mask") == "1:2":
            assert (matrix.reshape(-1, 2, matrix.shape[1]).sum(axis=1) == 1).all()
        if options.get("method") == "magnitude_pruning" and "mask" not in options:
            magnitudes = np.abs(kernel.variable.numpy())
            assert magnitudes[mask == 1].min() >= magnitudes[mask == 0].max()


def test_outputs_are_those_of_the_stock_layer_with_the_baked_kernels(case, options):
    layer, inputs = made(case, options)
    stock = layer.to_stock()
    np.testing.assert_allclose(layer(inputs), stock(inputs), rtol=1e-5, atol=1e-6)
    for kernel in layer.subnet_kernels:
        baked = kernel.baked().numpy()
        assert (baked[kernel.mask.numpy() == 0] == 0).all()
        kept = baked[kernel.mask.numpy() == 1]
        if options.get("binarize"):
            values = kernel.variable.numpy()[kernel.mask.numpy() == 1]
            np.testing.assert_allclose(kept, np.sign(values) * np.abs(values).mean(), rtol=1e-5)
        else:
            np.testing.assert_array_equal(kept, kernel.variable.numpy()[kernel.mask.numpy() == 1])


def test_what_is_trained_changes_and_nothing_else(case, options):
    model, layer = functional(case, options)
    frozen = options.get("method", "iterand") == "iterand"
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
    if options.get("method") == "random_pruning":
        for kernel, (_, mask) in zip(layer.subnet_kernels, before, strict=True):
            np.testing.assert_array_equal(kernel.mask, mask)


def test_trained_kernels_are_not_redrawn(case, options):
    layer, _ = made(case, options)
    before = [kernel.variable.numpy() for kernel in layer.subnet_kernels]
    changed = layer.rerandomize(step=1, rate=1.0)
    if options.get("method", "iterand") == "iterand":
        assert changed > 0
    else:
        assert changed == 0
        for kernel, old in zip(layer.subnet_kernels, before, strict=True):
            np.testing.assert_array_equal(kernel.variable, old)


def test_a_saved_model_gives_the_same(case, options, tmp_path):
    model, _ = functional(case, options)
    inputs = np.random.default_rng(0).normal(size=(3, *case[1])).astype(np.float32)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_with_and_without_xla(options, jit_compile):
    layer, inputs = made(LAYERS["conv"], options)
    function = tf.function(layer.__call__, jit_compile=jit_compile, autograph=False)
    np.testing.assert_allclose(function(inputs), layer(inputs), rtol=1e-5, atol=1e-5)


def test_one_and_two_devices_train_alike(options, strategy_scope):
    case = LAYERS["conv"]

    def losses(scope):
        with scope():
            model, _ = functional(case, options)
            model.compile(keras.optimizers.SGD(0.05), "mse")
        inputs = np.random.default_rng(0).normal(size=(4, *case[1]))
        targets = np.ones((4, model.output_shape[-1]))
        history = model.fit(inputs, targets, batch_size=4, epochs=3, shuffle=False, verbose=0)
        return history.history["loss"]

    np.testing.assert_allclose(losses(strategy_scope), losses(contextlib.nullcontext), rtol=1e-4)


def test_the_gradient_reaches_the_scores_straight_through():
    layer = SubnetDense(3, seed=0, binarize=True, weight_distribution="kaiming_uniform")
    inputs = tf.random.stateless_normal((5, 4), seed=(1, 2))
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs))
    upstream = tf.tile(tf.reduce_sum(inputs, axis=0)[:, tf.newaxis], (1, 3))
    gain = np.abs(layer.kernel.numpy())[layer.kernel_mask.numpy() == 1].mean()
    expected = upstream * gain * np.sign(layer.kernel)
    np.testing.assert_allclose(tape.gradient(loss, layer.scores), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "pruning"}, "method must be one of iterand, magnitude_pruning, random_pruning"),
        ({"mask": "global"}, "mask='global' is of a whole model"),
        ({"mask": "4:2"}, "mask must be per_kernel, global or N:M"),
        ({"mask": "2:4", "sparsity": 0.6}, "sparsity must be 0.5 with mask=2:4"),
        ({"mask": "2:4", "min_per_channel": 1}, "min_per_channel must be 0 with mask=2:4"),
        ({"binarize": True, "method": "magnitude_pruning"}, "binarize must be False with method=magnitude_pruning"),
        ({"mask": "1:4", "sparsity": 0.75}, "mask=1:4 needs kernels whose inputs 4 divides, and mine has 6"),
        ({"min_per_channel": 7}, "min_per_channel=7 keeps more than a sparsity of 0.5 leaves of the kernel of mine"),
        ({"min_per_channel": 3, "sparsity": 0.9}, "min_per_channel=3 keeps more than a sparsity of 0.9 leaves"),
    ],
)
def test_refuses_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        SubnetDense(4, name="mine", **arguments).build((1, 6))


def test_rerandomize_refuses_a_model_of_trained_kernels():
    model = keras.Sequential([keras.Input((4,)), SubnetDense(2, method="magnitude_pruning")])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="have the method iterand"):
        model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0, callbacks=[Rerandomize(1, 0.5)])


def test_a_new_method_is_in_the_table():
    assert {options.get("method", "iterand") for options in OPTIONS.values()} == set(
        iterand_tf.layers.subnet_options.METHODS
    )
