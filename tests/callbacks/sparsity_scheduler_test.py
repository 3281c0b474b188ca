"""Sparsities that change in training: exact at every step, without new traces, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf import (
    MagnitudePruning,
    RandomPruning,
    Rerandomize,
    SparsityScheduler,
    SubnetDense,
    Supermask,
    models,
    sparsity_report,
    to_subnet,
)

IMAGES = np.random.default_rng(0).uniform(0, 255, (24, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(24) % 10
METHODS = {"supermask": Supermask, "magnitude_pruning": MagnitudePruning, "random_pruning": RandomPruning}


class KeptAtEachStep(keras.callbacks.Callback):
    """Records, before each step, how many entries all masks keep."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_begin(self, batch, logs=None):
        kernels = [kernel for layer in iterand_tf.subnet_layers(self.model) for kernel in layer.subnet_kernels]
        self.kept.append([int(kernel.mask.numpy().sum()) for kernel in kernels])


def network(method=None):
    method = method or Supermask()
    if isinstance(method, Supermask):
        return models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(method), width_factor=0.1)
    stock = models.build("conv2", (8, 8, 1), 10, models.StockFactory(), width_factor=0.1)
    return to_subnet(stock, method=method, verbose=False)


def fit(model, schedule, epochs=2, frequency=1, **arguments):
    if not model.compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05), loss)
    record = KeptAtEachStep()
    callbacks = [SparsityScheduler(schedule, frequency), record]
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
        model = network(METHODS[method](0.9, mask=mask))
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
    model = network(MagnitudePruning())
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
    model.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[SparsityScheduler(decay)])
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
    schedule = SparsityScheduler(lambda step: 0.05 * step)
    model.compile("sgd", loss, jit_compile=jit_compile)
    model.fit(inputs, targets, batch_size=4, epochs=1, verbose=0, callbacks=[schedule])
    assert len(traces) == 2 * before
    assert model.layers[0].num_kept == 30 - round(0.5 * 30)


def test_what_is_saved_continues(tmp_path):
    model = network(Supermask(0.3))
    fit(model, lambda step: min(0.1 * step, 0.6), epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert sparsity_report(loaded) == sparsity_report(model)
    other = network(Supermask(0.3))
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))


def test_beside_rerandomization():
    model = network(Supermask(weight_distribution="kaiming_uniform"))
    size = sparsity_report(model).total.num_weights
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [Rerandomize(3, 1.0), SparsityScheduler(lambda step: 0.5 if step >= 3 else 0.25)]
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
    for schedule, frequency, sentence in (
        ("much", 1, "schedule must be a number"),
        (1.0, 1, "schedule must be at least 0 and below 1"),
        (0.5, 0, "frequency must be at least 1"),
        (0.5, 1.5, "frequency must be a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            SparsityScheduler(schedule, frequency)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="needs a model with Subnet layers"):
        fit(model, lambda step: 0.5)
    with pytest.raises(ValueError, match="set_sparsity needs a model with Subnet layers"):
        iterand_tf.set_sparsity(model, 0.5)


def test_a_sparsity_that_does_not_fit_one_layer_changes_none():
    layers = [SubnetDense(4), SubnetDense(4, method=MagnitudePruning(mask="2:4"))]
    model = keras.Sequential([keras.Input((8,)), *layers])
    before = sparsity_report(model)
    with pytest.raises(ValueError, match=r"sparsity must be at least 0.5 with mask=2:4"):
        iterand_tf.set_sparsity(model, 0.4)
    assert sparsity_report(model) == before
    assert [layer.sparsity for layer in layers] == [0.5, 0.5]
    iterand_tf.set_sparsity(model, 0.75)
    assert [layer.num_kept for layer in layers] == [8, 4]


def test_a_number_is_the_sparsity_of_all_steps():
    model = network()
    sizes = [layer.num_weights for layer in sparsity_report(model).layers]
    kept = fit(model, 0.8)
    assert kept == [[size - round(0.8 * size) for size in sizes]] * 12


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_sparsity_changes_at_multiples_of_the_frequency(steps_per_execution):
    model = network(MagnitudePruning())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, steps_per_execution=steps_per_execution)
    size = sparsity_report(model).layers[0].num_weights
    asked = []
    kept = fit(model, lambda step: asked.append(step) or 0.05 * step, frequency=5)
    assert asked == [0, 5, 10]
    # An execution of four steps ends at 4 and, after those of the second epoch, at 6 + 4.
    ends = {1: list(range(12)), 4: [0, 4, 6, 10]}[steps_per_execution]
    assert [size - counts[0] for counts in kept] == [round(0.05 * (step - step % 5) * size) for step in ends]


def shares(model):
    """What numpy's ranking over all kernels gives each."""
    kernels = [kernel for layer in iterand_tf.subnet_layers(model) for kernel in layer.subnet_kernels]
    ranked = [np.ravel(np.abs(kernel.variable.numpy())) for kernel in kernels]
    flat = np.concatenate(ranked)
    sparsity = kernels[0].method.sparsity
    threshold = np.sort(flat)[round(sparsity * flat.size)]
    return [int((each >= threshold).sum()) for each in ranked]


class Shares(keras.callbacks.Callback):
    """Records the numbers kept after each step, and what one ranking would give."""

    def __init__(self):
        super().__init__()
        self.kept, self.ranked = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.kept.append([layer.num_kept for layer in sparsity_report(self.model).layers])
        self.ranked.append(shares(self.model))


def test_kernels_that_are_ranked_together_are_ranked_anew_at_every_event():
    model = network(MagnitudePruning(0.8, mask="global"))
    model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [layer.num_kept for layer in sparsity_report(model).layers]
    record = Shares()
    callbacks = [SparsityScheduler(0.8, frequency=3), record]
    model.fit(IMAGES / 255, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    for step, (kept, ranked) in enumerate(zip(record.kept, record.ranked, strict=True), start=1):
        assert sum(kept) == sum(before)
        if step % 3 == 0:
            assert kept == ranked
        elif step > 1:
            assert kept == (record.kept[step - 2])
    assert record.kept[-1] != before


def test_a_fit_that_goes_on_keeps_the_shares_until_the_next_event():
    """Training that is interrupted and goes on does what training in one go does."""

    def trained(*epochs):
        keras.utils.set_random_seed(0)
        model = network(MagnitudePruning(0.8, mask="global"))
        model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        done = 0
        for until in epochs:
            callbacks = [SparsityScheduler(lambda step: min(0.1 * step, 0.8), frequency=4)]
            model.fit(IMAGES / 255, LABELS, batch_size=4, epochs=until, initial_epoch=done, shuffle=False, verbose=0,
                      callbacks=callbacks)  # fmt: skip
            done = until
        return model

    whole = trained(3)
    for other in (trained(1, 3), trained(2, 3)):
        assert sparsity_report(other) == sparsity_report(whole)
        np.testing.assert_array_equal(other(IMAGES), whole(IMAGES))


def test_a_saved_model_that_is_trained_on_keeps_its_shares(tmp_path):
    model = network(MagnitudePruning(0.8, mask="global"))
    model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [SparsityScheduler(0.8, frequency=4)]
    fits = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(IMAGES / 255, LABELS, **fits)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(IMAGES / 255, LABELS, epochs=2, initial_epoch=1, **fits)
    assert sparsity_report(loaded) == sparsity_report(model)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


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
