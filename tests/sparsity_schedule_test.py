"""Sparsities that change in training: exact at every step, without new traces, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf import Rerandomize, SparsitySchedule, SubnetDense, models, sparsity_report

IMAGES = np.random.default_rng(0).uniform(0, 255, (24, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(24) % 10
METHODS = ("iterand", "magnitude_pruning", "random_pruning")


class KeptAtEachStep(keras.callbacks.Callback):
    """Records, before each step, how many entries all masks keep."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_begin(self, batch, logs=None):
        kernels = [kernel for layer in iterand_tf.subnet_layers(self.model) for kernel in layer.subnet_kernels]
        self.kept.append([int(kernel.mask.numpy().sum()) for kernel in kernels])


def network(**options):
    return models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(**options), width_factor=0.1)


def fit(model, schedule, epochs=2, **arguments):
    if not model.compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05), loss)
    record = KeptAtEachStep()
    callbacks = [SparsitySchedule(schedule), record]
    model.fit(IMAGES, LABELS, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)
    return record.kept


@pytest.fixture
def tfmot_schedules(monkeypatch):
    """Schedules of tfmot; what its import does to later imports of Keras is undone."""
    tf.keras.version()
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    return pytest.importorskip("tensorflow_model_optimization").sparsity.keras


@pytest.mark.parametrize("mask", ["per_kernel", "global"])
@pytest.mark.parametrize("method", METHODS)
def test_each_step_has_the_sparsity_of_the_schedule(method, mask, strategy_scope):
    with strategy_scope():
        model = network(method=method, mask=mask, sparsity=0.9)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05), loss)
    sizes = [layer.num_weights for layer in sparsity_report(model).layers]
    kept = fit(model, lambda step: min(0.1 * step, 0.75))
    for step, counts in enumerate(kept):
        sparsity = float(str(min(0.1 * step, 0.75)))
        if mask == "global":
            assert sum(counts) == sum(sizes) - round(sparsity * sum(sizes))
        else:
            assert counts == [size - round(sparsity * size) for size in sizes]


def test_a_schedule_of_tfmot_prunes_when_it_says(tfmot_schedules):
    decay = tfmot_schedules.PolynomialDecay(0.2, 0.8, begin_step=2, end_step=8, power=3, frequency=2)
    model = network(method="magnitude_pruning")
    size = sparsity_report(model).layers[0].num_weights
    kept = [counts[0] for counts in fit(model, decay)]
    at = [0.8 + (0.2 - 0.8) * (1 - (step - 2) / 6) ** 3 for step in (2, 4, 6, 8)]
    expected = [0.0, 0.0, *(sparsity for sparsity in at for _ in range(2)), 0.8, 0.8]
    assert [size - count for count in kept] == [round(sparsity * size) for sparsity in expected]


def test_constant_sparsity_of_tfmot(tfmot_schedules):
    constant = tfmot_schedules.ConstantSparsity(0.6, begin_step=3, frequency=1)
    model = network()
    size = sparsity_report(model).layers[0].num_weights
    kept = [counts[0] for counts in fit(model, constant, epochs=1)]
    assert kept == [size] * 3 + [size - round(0.6 * size)] * 3


def test_steps_that_an_execution_skips_over_count(tfmot_schedules):
    decay = tfmot_schedules.PolynomialDecay(0.2, 0.8, begin_step=1, end_step=9, frequency=4)
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, steps_per_execution=3)
    model.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[SparsitySchedule(decay)])
    for layer in sparsity_report(model).layers:
        assert layer.num_kept == layer.num_weights - round(0.8 * layer.num_weights)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_functions_are_traced_once(jit_compile):
    model = keras.Sequential([keras.Input((6,)), SubnetDense(5)])
    traces = []

    def loss(y_true, y_pred):
        traces.append(0)
        return keras.ops.mean(keras.ops.square(y_pred))

    model.compile("sgd", loss, jit_compile=jit_compile)
    inputs, targets = np.ones((40, 6)), np.ones((40, 5))
    model.fit(inputs, targets, batch_size=4, epochs=1, verbose=0)
    before = len(traces)
    schedule = SparsitySchedule(lambda step: 0.05 * step)
    model.compile("sgd", loss, jit_compile=jit_compile)
    model.fit(inputs, targets, batch_size=4, epochs=1, verbose=0, callbacks=[schedule])
    assert len(traces) == 2 * before
    assert model.layers[0].num_kept == 30 - round(0.5 * 30)


def test_what_is_saved_continues(tmp_path):
    model = network(sparsity=0.3)
    fit(model, lambda step: min(0.1 * step, 0.6), epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert sparsity_report(loaded) == sparsity_report(model)
    other = network(sparsity=0.3)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))


def test_beside_rerandomization():
    model = network(weight_distribution="kaiming_uniform")
    size = sparsity_report(model).total.num_weights
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [Rerandomize(3, 1.0), SparsitySchedule(lambda step: 0.5 if step >= 3 else 0.25)]
    history = model.fit(IMAGES, LABELS, batch_size=4, verbose=0, callbacks=callbacks)
    # After step 3 what steps 0 to 2 were done without, and after step 6 what steps 3 to 5 were.
    assert history.history["rerandomized_weights"] == [pytest.approx(0.25 * size + 0.5 * size, abs=10)]


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        (lambda step: 0.5 - 0.1 * step, "a sparsity schedule never lowers the sparsity.* 0.5 before step 1 and 0.4"),
        (lambda step: 1.0, "sparsity must be at least 0 and below 1"),
        (lambda step: "much", "schedule must be one that gives a number"),
        (lambda step: None, "schedule must be one that gives a number"),
    ],
)
def test_refuses_in_one_sentence(schedule, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(network(), schedule)


def test_refuses_what_is_no_schedule_and_models_without_subnet_layers():
    with pytest.raises(ValueError, match="schedule must be a function of the step"):
        SparsitySchedule(0.5)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="needs a model with Subnet layers"):
        fit(model, lambda step: 0.5)
    layer = SubnetDense(4, mask="2:4")
    with pytest.raises(ValueError, match=r"sparsity must be 0.5 with mask=2:4"):
        layer.set_sparsity(0.6)


def test_a_custom_loop_sets_the_sparsity_itself():
    model = network()
    step = tf.function(lambda images: model(images, training=True))
    for sparsity in (0.2, 0.4):
        iterand_tf.set_sparsity(model, sparsity)
        step(IMAGES)
        total = sparsity_report(model).total
        assert total.num_kept == sum(
            each.num_weights - round(sparsity * each.num_weights) for each in sparsity_report(model).layers
        )
    assert step.experimental_get_tracing_count() == 1
