# ruff: noqa: E402
"""The library on Keras's JAX backend, where TensorFlow cannot be imported; `make test-jax` runs this file.

What is exact on TensorFlow is exact here too: the same tables, the same oracles.
"""

import os
import pathlib
import subprocess
import sys

import pytest

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("runs with KERAS_BACKEND=jax, by make test-jax", allow_module_level=True)


class _NoTensorFlow:
    """Imports fail as on a machine that does not have TensorFlow."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, _NoTensorFlow)  # type: ignore[arg-type]

import keras
import mask_tables
import numpy as np
from stock_layers import stock_of

import iterand_tf
from iterand_tf import (
    MagnitudePruning,
    RandomPruning,
    Rerandomize,
    SparsityScheduler,
    Subnet,
    SubnetDense,
    Supermask,
    bake,
    masks,
    models,
    rerandomize_model,
    sparsity_report,
    to_subnet,
)
from iterand_tf.distributions import NAMES, sample
from iterand_tf.optimization import CoupledSGD

ROOT = pathlib.Path(__file__).parent.parent
layers = keras.layers


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize(("scores", "sparsity", "expected"), mask_tables.TOP_K)
def test_hand_written_masks(scores, sparsity, expected):
    assert np.asarray(masks.topk_mask(np.array(scores, np.float32), sparsity)).tolist() == expected


@pytest.mark.parametrize(("scores", "n", "m", "axes", "expected"), mask_tables.N_OF_M)
def test_n_of_every_m(scores, n, m, axes, expected):
    assert np.asarray(masks.nm_mask(np.array(scores, np.float32), n, m, axes)).tolist() == expected


@pytest.mark.parametrize("size", [3001, 300_001])
def test_masks_equal_the_sorting_oracle(size):
    scores = np.random.default_rng(0).normal(size=(size,)).round(2).astype(np.float32)
    for sparsity in (0.001, 0.5, 0.999):
        np.testing.assert_array_equal(
            masks.topk_mask(scores, sparsity), mask_tables.sorting_oracle(scores, sparsity)
        )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_functions_of_their_seed(name):
    first, again, other = (np.asarray(sample(name, (50, 40), seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert abs(first.mean()) < 5 * first.std() / np.sqrt(first.size)


# name: (makes the layer, shapes of its inputs)
LAYERS = {
    "dense": (lambda: layers.Dense(4, activation="relu"), [(6,)]),
    "conv": (lambda: layers.Conv2D(4, 3), [(8, 8, 2)]),
    "lstm": (lambda: layers.LSTM(4), [(6, 4)]),
    "attention": (lambda: layers.MultiHeadAttention(2, 4), [(5, 8), (6, 8)]),
    "block": (lambda: keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()]), [(8, 8, 2)]),
}
METHODS = [
    Supermask(),
    Supermask(binarize=True, weight_distribution="kaiming_uniform"),
    MagnitudePruning(),
    RandomPruning(),
    Supermask(min_per_channel=1),
    Supermask(mask="1:2"),
    MagnitudePruning(0.75, mask="1:2"),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_are_those_of_the_stock_layer(name, method):
    make, shapes = LAYERS[name]
    layer = Subnet(make(), method=method, seed=3)
    inputs = [
        np.random.default_rng(number).normal(size=(4, *shape)).astype("f4") for number, shape in enumerate(shapes)
    ]
    np.testing.assert_allclose(layer(*inputs), stock_of(layer, *inputs)(*inputs), rtol=1e-4, atol=1e-5)
    for kernel in layer.subnet_kernels:
        assert np.asarray(kernel.mask).sum() == kernel.num_kept == kernel.num_weights * (1 - method.sparsity)
        if method.mask == "1:2":
            ranked = np.abs(kernel.variable) if kernel.scores is None else np.asarray(kernel.scores)
            axes = tuple(range(len(kernel.shape) - 1))
            if name != "attention":
                expected = mask_tables.pattern_oracle(np.asarray(ranked), kernel.num_kept, axes, (1, 2))
                np.testing.assert_array_equal(kernel.mask, expected)


IMAGES = np.random.default_rng(0).uniform(0, 255, (32, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(32) % 10


def network(method=None):
    method = method or Supermask()
    if isinstance(method, Supermask):
        return models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(method), 0.1, batch_normalization=True)
    stock = models.build("conv2", (8, 8, 1), 10, models.StockFactory(), 0.1, batch_normalization=True)
    return to_subnet(stock, method=method, verbose=False)


def fit(model, callbacks, epochs=2):
    model.compile(CoupledSGD(0.05, 0.9, l2=1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.fit(IMAGES, LABELS, 4, epochs, shuffle=False, verbose=0, callbacks=callbacks).history


def test_rerandomization_between_the_steps_of_fit(tmp_path):
    model = network(Supermask(weight_distribution="kaiming_uniform"))
    before = [np.asarray(layer.kernel) for layer in iterand_tf.subnet_layers(model)]
    history = fit(model, [Rerandomize(5, 0.5)], epochs=4)
    assert history["loss"][-1] < history["loss"][0]
    # Three events in 16 steps, of which one is in the first epoch of eight.
    assert min(history["rerandomized_weights"]) > 0
    for layer, old in zip(iterand_tf.subnet_layers(model), before, strict=True):
        assert int(np.asarray(layer.num_draws)) == 1 + 32 // 5
        assert 0 < (np.asarray(layer.kernel) != old).mean() < 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


def test_nothing_else_changes_the_kernels():
    model = network()
    before = [np.asarray(layer.kernel) for layer in iterand_tf.subnet_layers(model)]
    fit(model, [Rerandomize(5, 0.0)])
    for layer, old in zip(iterand_tf.subnet_layers(model), before, strict=True):
        np.testing.assert_array_equal(layer.kernel, old)


@pytest.mark.parametrize("mask", ["per_kernel", "global"])
@pytest.mark.parametrize("method", [Supermask, MagnitudePruning])
def test_each_step_has_the_sparsity_of_the_schedule(method, mask):
    model = network(method(mask=mask))
    kept = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.jax_state_sync()
            kept.append(sparsity_report(self.model).total.num_kept)

    # The callback that stands after the schedule sees what the next step computes with.
    fit(model, [SparsityScheduler(lambda step: min(0.1 * step, 0.6)), Record()])
    sizes = [layer.num_weights for layer in sparsity_report(model).layers]
    for step, count in enumerate(kept, start=1):
        sparsity = float(str(min(0.1 * step, 0.6)))
        groups = [sum(sizes)] if mask == "global" else sizes
        assert count == sum(size - round(sparsity * size) for size in groups)


def test_a_converted_model_trains():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.SeparableConv2D(4, 3), layers.BatchNormalization(), layers.Flatten()]
    )
    model.add(layers.Dense(10))
    subnet = to_subnet(model, 0.5, seed=0, verbose=False)
    kernels = [kernel for layer in iterand_tf.subnet_layers(subnet) for kernel in layer.subnet_kernels]
    before = [np.asarray(kernel.variable) for kernel in kernels]
    history = fit(subnet, [], epochs=5)
    assert history["loss"][-1] < history["loss"][0]
    for kernel, old in zip(kernels, before, strict=True):
        np.testing.assert_array_equal(kernel.variable, old)
        assert np.asarray(kernel.mask).sum() == kernel.num_weights - round(0.5 * kernel.num_weights)


def test_kernels_that_are_ranked_together_are_ranked_anew_at_every_event():
    model = network(MagnitudePruning(0.8, mask="global"))
    fit(model, [SparsityScheduler(0.8, frequency=4)])
    kernels = [kernel for layer in iterand_tf.subnet_layers(model) for kernel in layer.subnet_kernels]
    ranked = [np.abs(kernel.variable).ravel() for kernel in kernels]
    flat = np.concatenate(ranked)
    # The last event was after the last of 16 steps.
    threshold = np.sort(flat)[round(0.8 * flat.size)]
    assert [kernel.num_kept for kernel in kernels] == [int((each >= threshold).sum()) for each in ranked]


def test_a_loop_of_ones_own_redraws():
    model = network(Supermask(weight_distribution="kaiming_uniform"))
    layers_of_model = iterand_tf.subnet_layers(model)
    before = [(np.asarray(layer.kernel), np.asarray(layer.kernel_mask)) for layer in layers_of_model]
    changed = rerandomize_model(model, 1.0)
    assert changed == sum(int((mask == 0).sum()) for _, mask in before)
    for layer, (kernel, mask) in zip(layers_of_model, before, strict=True):
        np.testing.assert_array_equal(np.asarray(layer.kernel) != kernel, mask == 0)


def test_a_baked_model_answers_alike():
    for method in (Supermask(0.6, mask="global"), MagnitudePruning(0.75, mask="1:3")):
        stock = models.build("conv2", (8, 8, 3), 10, models.StockFactory(), 0.1)
        model = to_subnet(stock, {"head": None, "*": method}, verbose=False)
        images = np.repeat(IMAGES, 3, axis=-1)
        baked = bake(model)
        assert not iterand_tf.subnet_layers(baked)
        np.testing.assert_allclose(baked(images), model(images), rtol=1e-4, atol=1e-4)


def test_a_layer_that_assigns_to_its_kernel_in_a_call_is_refused():
    layer = Subnet(layers.SpectralNormalization(layers.Dense(4)), seed=1)
    assert layer(np.ones((2, 3))).shape == (2, 4)
    with pytest.raises(ValueError, match="assigns to its kernel while it is called"):
        layer(np.ones((2, 3)), training=True)
    around = layers.SpectralNormalization(SubnetDense(4, method="magnitude_pruning"))
    assert around(np.ones((2, 3)), training=True).shape == (2, 4)


def test_two_devices_train_the_network_of_one():
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == 2, "make test-jax splits the CPU in two"

    def trained(distribution):
        keras.utils.set_random_seed(0)
        keras.distribution.set_distribution(distribution)
        try:
            model = network(Supermask(weight_distribution="kaiming_uniform"))
            history = fit(model, [Rerandomize(5, 0.5)], epochs=3)
            return history["loss"], [np.asarray(variable) for variable in model.variables]
        finally:
            keras.distribution.set_distribution(None)

    losses, weights = trained(None)
    on_two, weights_on_two = trained(keras.distribution.DataParallel(devices=devices))
    np.testing.assert_allclose(on_two, losses, rtol=1e-4)
    for ours, theirs in zip(weights_on_two, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_example_learns_digits(tmp_path):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = (16 * digits.images[..., None]).clip(0, 255).astype(np.uint8), digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1437], order[1437:]
    np.savez(
        tmp_path / "digits.npz",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )
    command = [sys.executable, str(ROOT / "examples" / "train_with_jax.py"), "--data=digits.npz", "--model=conv2"]
    flags = ["--augment=0", "--learning_rate=0.1", "--epochs=20", "--batch_size=32", "--width_factor=0.25"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*command, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) >= 0.97
    assert "images_per_second" in (tmp_path / "metrics.csv").read_text()
