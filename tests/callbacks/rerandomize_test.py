"""Rerandomize in model.fit: events at the right steps, whatever way fit is called; rerandomize_model in other loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf import MagnitudePruning, Rerandomize, Supermask, rerandomize_model
from iterand_tf.rerandomization import Blended

EXAMPLES, BATCH = 32, 4  # eight steps an epoch
INPUTS = np.random.default_rng(0).normal(size=(EXAMPLES, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)


def sequential():
    return keras.Sequential([keras.Input((6,)), *layers()])


def functional():
    inputs = x = keras.Input((6,))
    for layer in layers():
        x = layer(x)
    return keras.Model(inputs, x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers()

    def call(self, inputs):
        return self.head(self.hidden(inputs))


MODELS = {"sequential": sequential, "functional": functional, "subclassed": Subclassed}


def layers():
    arguments = {"method": Supermask(0.5, weight_distribution="kaiming_uniform"), "seed": 1}
    return (
        iterand_tf.SubnetDense(8, activation="relu", name="hidden", **arguments),
        iterand_tf.SubnetDense(2, name="head", **arguments),
    )


def compiled(build=sequential, **arguments):
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **arguments)
    return model


def fit(model, *callbacks, **arguments):
    arguments = {"batch_size": BATCH, "epochs": 1, "shuffle": False, "verbose": 0} | arguments
    return model.fit(INPUTS, LABELS, callbacks=list(callbacks), **arguments)


def weights(model):
    return [variable.numpy() for variable in model.variables]


def assert_same(first, second):
    for ours, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Events(Rerandomize):
    """Records after which steps the kernels changed."""

    def on_train_begin(self, logs=None):
        self.steps = []
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch, logs=None):
        layers = iterand_tf.subnet_layers(self.model)
        before = [layer.kernel.numpy() for layer in layers]
        super().on_train_batch_end(batch, logs)
        if any((layer.kernel.numpy() != kernel).any() for layer, kernel in zip(layers, before, strict=True)):
            self.steps.append(int(self.model.optimizer.iterations))


def by_hand(model, steps, period, rate):
    """The same training as a plain loop: the oracle of the callback."""
    for step in range(1, steps + 1):
        batch = slice((step - 1) * BATCH % EXAMPLES, (step - 1) * BATCH % EXAMPLES + BATCH)
        model.train_on_batch(INPUTS[batch], LABELS[batch])
        if step % period == 0:
            for layer in iterand_tf.subnet_layers(model):
                layer.rerandomize(step, rate)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_equals_a_hand_written_loop(build):
    fitted, looped = compiled(build), compiled(build)
    events = Events(period=3, rate=0.5)
    fit(fitted, events, epochs=2)
    by_hand(looped, 16, period=3, rate=0.5)
    assert events.steps == [3, 6, 9, 12, 15]
    assert_same(fitted, looped)


def test_steps_per_execution_skips_over_no_event():
    model = compiled(steps_per_execution=4)
    history = fit(model, events := Events(period=3, rate=1.0)).history
    assert events.steps == [4, 8]  # the events of 3, and of 6, when the executions end
    pruned = sum(layer.num_weights - layer.num_kept for layer in iterand_tf.subnet_layers(model))
    assert history["rerandomized_weights"] == [2 * pruned]


def test_repeated_fits_and_initial_epoch_continue_the_count():
    once, twice = compiled(), compiled()
    fit(once, Rerandomize(period=5, rate=0.5), epochs=3)
    fit(twice, Rerandomize(period=5, rate=0.5))
    fit(twice, Rerandomize(period=5, rate=0.5), initial_epoch=1, epochs=3)
    assert_same(once, twice)


def test_an_event_due_at_the_step_of_a_resume_happens_once():
    whole, saved = compiled(), compiled()
    fit(whole, Rerandomize(period=8, rate=0.5), epochs=2)
    fit(saved)  # ends at step 8, before its event, as a checkpoint written earlier in the list of callbacks does
    fit(saved, Rerandomize(period=8, rate=0.5), initial_epoch=1, epochs=2)
    assert_same(whole, saved)


def draws(model):
    return [int(layer.num_draws.numpy()) for layer in iterand_tf.subnet_layers(model)]


def test_no_draw_is_repeated_after_a_new_compile(tmp_path):
    model = compiled()
    kernels = [[layer.kernel.numpy() for layer in iterand_tf.subnet_layers(model)]]
    for again in range(3):
        if again == 2:
            model.save(tmp_path / "model.keras")
            model = keras.models.load_model(tmp_path / "model.keras", compile=False)
        model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = fit(model, Rerandomize(period=8, rate=1.0)).history
        kernels.append([layer.kernel.numpy() for layer in iterand_tf.subnet_layers(model)])
        changed = sum((new != old).sum() for new, old in zip(kernels[-1], kernels[-2], strict=True))
        pruned = sum(layer.num_weights - layer.num_kept for layer in iterand_tf.subnet_layers(model))
        assert history["rerandomized_weights"] == [changed] == [pruned]
        assert draws(model) == [2 + again] * 2


class InterruptionError(Exception):
    """Ends fit, as a lost machine would."""


class Interrupt(keras.callbacks.Callback):
    """Interrupts fit when the optimizer has done so many steps."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise InterruptionError


# What stands beside Rerandomize, given a directory.
BESIDE = {
    "backup": lambda path: [],
    "terminate_on_nan": lambda path: [keras.callbacks.TerminateOnNaN()],
    "learning_rate": lambda path: [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))],
    "ema": lambda path: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    "early_stopping": lambda path: [
        keras.callbacks.EarlyStopping("loss", restore_best_weights=True, start_from_epoch=2)
    ],
}


@pytest.mark.parametrize("first", [True, False], ids=["rerandomize_first", "rerandomize_last"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_interrupted_and_restored_beside_other_callbacks(first, beside, tmp_path):
    def train(directory, interruption=None):
        model = sequential()
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=beside is BESIDE["ema"])
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        others = [keras.callbacks.BackupAndRestore(directory), *beside(directory)]
        ours = [Rerandomize(period=4, rate=0.5)]
        callbacks = [*ours, *others] if first else [*others, *ours]
        if interruption is None:
            fit(model, *callbacks, epochs=3)
            return model
        with pytest.raises(InterruptionError):
            fit(model, *callbacks, Interrupt(interruption), epochs=3)
        return None

    whole = train(tmp_path / "whole")
    train(tmp_path / "killed", interruption=13)
    resumed = train(tmp_path / "killed")
    assert draws(whole) == draws(resumed) == [1 + 24 // 4] * 2
    for ours, theirs in zip(whole.variables, resumed.variables, strict=True):
        # Keras swaps averages and weights by sums and differences, which round.
        tolerance = 1e-6 if beside is BESIDE["ema"] and ours.name == "scores" else 0
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, err_msg=ours.path)


def test_an_event_is_done_once_when_a_backup_lies_between_the_step_and_its_event(tmp_path):
    """The backup of step 8 stands before the event of step 8, or after it; Keras then does the first epoch again."""
    whole = compiled()
    fit(whole, Rerandomize(period=8, rate=0.5), epochs=3)
    for first in (True, False):
        directory = tmp_path / str(first)
        for interruption in (9, None):
            model = compiled()
            backup = keras.callbacks.BackupAndRestore(directory, save_freq=8, delete_checkpoint=False)
            callbacks = [Rerandomize(period=8, rate=0.5), backup]
            callbacks = callbacks if first else callbacks[::-1]
            if interruption is None:
                fit(model, *callbacks, epochs=2)
            else:
                with pytest.raises(InterruptionError):
                    fit(model, *callbacks, Interrupt(interruption), epochs=2)
        assert draws(model) == draws(whole) == [4, 4]
        assert_same(model, whole)


class SaveAndStop(keras.callbacks.Callback):
    """Saves the model after its first execution, before what stands behind in the list, and ends fit."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_batch_end(self, batch, logs=None):
        self.model.save(self.path)
        raise InterruptionError


@pytest.mark.parametrize(("steps_per_execution", "period"), [(8, 2), (4, 3)])
def test_all_events_of_an_execution_are_done_once_when_a_save_lies_before_them(steps_per_execution, period, tmp_path):
    whole, saved = (compiled(steps_per_execution=steps_per_execution) for _ in range(2))
    fit(whole, Rerandomize(period, 0.5), epochs=2)
    with pytest.raises(InterruptionError):
        fit(saved, SaveAndStop(tmp_path / "model.keras"), Rerandomize(period, 0.5))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rest = {"epochs": 2, "initial_epoch": 1}
    if steps_per_execution < 8:
        half = slice(steps_per_execution * BATCH, None)
        loaded.fit(INPUTS[half], LABELS[half], batch_size=BATCH, shuffle=False, verbose=0,
                   callbacks=[Rerandomize(period, 0.5)])  # fmt: skip
    fit(loaded, Rerandomize(period, 0.5), **rest)
    assert draws(loaded) == draws(whole)
    assert_same(loaded, whole)


def test_layers_of_equal_names_and_seeds_are_refused():
    def block(name):
        return keras.Sequential([keras.Input((6,)), iterand_tf.SubnetDense(6, name="dense", seed=0)], name=name)

    model = compiled(lambda: keras.Sequential([keras.Input((6,)), block("a"), block("b")]))
    with pytest.raises(ValueError, match="two Subnet layers of one model have the same name and seed"):
        fit(model, Rerandomize())


class WithUnusedLayer(keras.Model):
    def __init__(self):
        super().__init__()
        self.unused, self.head = layers()

    def call(self, inputs):
        return self.head(inputs)


def test_a_layer_that_no_call_uses_is_left_out():
    model = compiled(WithUnusedLayer)
    history = fit(model, Rerandomize(period=2, rate=1.0)).history
    assert history["rerandomized_weights"] == [4 * 6]
    report = iterand_tf.sparsity_report(model)
    assert [layer.name for layer in report.layers] == ["head"]


def test_frozen_layers_are_not_redrawn():
    model = compiled()
    hidden, head = iterand_tf.subnet_layers(model)
    hidden.trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [layer.kernel.numpy() for layer in (hidden, head)]
    fit(model, Rerandomize(period=2, rate=1.0))
    np.testing.assert_array_equal(hidden.kernel, before[0])
    assert (head.kernel.numpy() != before[1]).any()


def test_a_loop_of_ones_own_does_what_the_callback_does():
    fitted, looped = compiled(), compiled()
    fit(fitted, Rerandomize(period=3, rate=0.5), epochs=2)
    for step in range(1, 17):
        batch = slice((step - 1) * BATCH % EXAMPLES, (step - 1) * BATCH % EXAMPLES + BATCH)
        with tf.GradientTape() as tape:
            loss = looped.loss(LABELS[batch], looped(INPUTS[batch], training=True))
        looped.optimizer.apply(tape.gradient(loss, looped.trainable_weights), looped.trainable_weights)
        if step % 3 == 0:
            rerandomize_model(looped, rate=0.5)
    assert draws(looped) == [6, 6]
    for ours, theirs in zip(weights(looped), weights(fitted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_redraw_by_hand_between_two_fits_is_counted_beside_the_events():
    """The event of step 8 has happened, and does not happen again when training goes on at that step."""
    model = compiled()
    fit(model, Rerandomize(period=8, rate=0.5))
    assert draws(model) == [2, 2]
    assert rerandomize_model(model, 0.5) > 0
    assert draws(model) == [3, 3]
    history = fit(model, Rerandomize(period=8, rate=0.5), epochs=2, initial_epoch=1).history
    assert draws(model) == [4, 4]
    assert history["rerandomized_weights"][0] > 0


def test_rate_zero_is_edge_popup():
    with_callback, without = compiled(), compiled()
    history = fit(with_callback, Rerandomize(period=2, rate=0.0)).history
    fit(without)
    assert history["rerandomized_weights"] == [0]
    assert_same(with_callback, without)


def test_periods_and_rates_may_be_functions_and_end():
    fitted, looped = compiled(), compiled()
    events = Events(period=lambda step: 2 + step, rate=lambda step: (1 + step) ** -0.5, last_step=13)
    fit(fitted, events, epochs=2)
    for step in range(1, 17):
        batch = slice((step - 1) * BATCH % EXAMPLES, (step - 1) * BATCH % EXAMPLES + BATCH)
        looped.train_on_batch(INPUTS[batch], LABELS[batch])
        # After steps 2 and 2 + 4; then 14 is past the last step.
        if step in (2, 6):
            for layer in iterand_tf.subnet_layers(looped):
                layer.rerandomize(step, (1 + step) ** -0.5)
    assert events.steps == [2, 6]
    assert_same(fitted, looped)


def test_a_schedule_of_keras_as_rate():
    model = compiled()
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([5], [1.0, 0.0])
    history = fit(model, Rerandomize(period=1, rate=rate)).history
    pruned = sum(layer.num_weights - layer.num_kept for layer in iterand_tf.subnet_layers(model))
    assert history["rerandomized_weights"] == [5 * pruned]
    assert draws(model) == [9, 9]


MODES = {"draw": "draw", "blend": "blend", "recycle": "recycle", "of ones own": lambda k, m, f, seed: 0 * k + 7}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_modes(mode):
    model = compiled()
    before = [(layer.kernel.numpy(), layer.kernel_mask.numpy()) for layer in iterand_tf.subnet_layers(model)]
    changed = rerandomize_model(model, 1.0, mode=mode)
    assert 0 < changed <= sum((mask == 0).sum() for _, mask in before)
    for layer, (kernel, mask) in zip(iterand_tf.subnet_layers(model), before, strict=True):
        after, fresh = layer.kernel.numpy(), layer.subnet_kernels[0].draw(1).numpy()
        np.testing.assert_array_equal(after[mask == 1], kernel[mask == 1])
        redrawn = after[mask == 0]
        if mode == "draw":
            np.testing.assert_array_equal(redrawn, fresh[mask == 0])
        elif mode == "blend":
            np.testing.assert_allclose(redrawn, ((kernel + fresh) * np.sqrt(0.5))[mask == 0], rtol=1e-5, atol=1e-7)
        elif mode == "recycle":
            assert set(redrawn.tolist()) <= set(kernel[mask == 1].tolist())
        else:
            assert set(redrawn.tolist()) == {7}
    fit(compiled(), Rerandomize(2, 0.5, mode=mode))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"period": -1}, "period must be at least 0"),
        ({"period": 1.5}, "period must be a whole number"),
        ({"rate": 1.1}, "rate must be at least 0 and at most 1"),
        ({"mode": "bernoulli"}, "mode must be one of draw, blend, recycle"),
        ({"last_step": -1}, "last_step must be at least 0"),
    ],
)
def test_refuses_arguments_out_of_range(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Rerandomize(**arguments)
    (name,) = arguments
    if name in ("rate", "mode"):
        with pytest.raises(ValueError, match=sentence):
            rerandomize_model(compiled(), **arguments)
    with pytest.raises(TypeError):
        Rerandomize(300, 0.1, "draw")


@pytest.mark.parametrize("use", [lambda model: fit(model, Rerandomize()), rerandomize_model])
def test_refuses_a_model_without_frozen_kernels(use):
    stock = compiled(lambda: keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]))
    pruned = compiled(lambda: iterand_tf.to_subnet(stock, method=MagnitudePruning(), verbose=False))
    for model in (stock, pruned):
        with pytest.raises(ValueError, match="built Subnet layers whose kernels are frozen"):
            use(model)


def test_layers_whose_kernels_are_trained_stay_beside_those_that_are_redrawn():
    hidden = iterand_tf.SubnetDense(8, method="magnitude_pruning", name="hidden")
    model = compiled(lambda: keras.Sequential([keras.Input((6,)), hidden, layers()[1]]))
    model.optimizer.learning_rate = 0.0
    kernel = hidden.kernel.numpy()
    history = fit(model, Rerandomize(4, 1.0)).history
    np.testing.assert_array_equal(hidden.kernel, kernel)
    assert history["rerandomized_weights"] == [2 * 8]
    assert rerandomize_model(model, 1.0, mode=Blended(0.5, 0.5)) == 8


def test_beside_other_callbacks_and_in_their_logs(tmp_path):
    model = compiled()
    history = fit(
        model,
        Rerandomize(period=3, rate=1.0),
        keras.callbacks.EarlyStopping("loss", patience=5),
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", monitor="loss", save_best_only=True),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        epochs=2,
    ).history
    redrawn = sum(layer.num_weights - layer.num_kept for layer in iterand_tf.subnet_layers(model))
    assert history["rerandomized_weights"] == [2 * redrawn, 3 * redrawn]
    assert len(history["mask_flip_ratio"]) == 2
    tags = {
        value.tag
        for file in (tmp_path / "logs" / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"epoch_rerandomized_weights", "epoch_mask_flip_ratio"} <= tags
    keras.models.load_model(tmp_path / "model.keras")


def test_mask_flip_ratio_is_the_fraction_of_changed_mask_entries():
    model = compiled()
    before = [layer.kernel_mask.numpy() for layer in iterand_tf.subnet_layers(model)]
    history = fit(model, Rerandomize(period=0)).history
    after = [layer.kernel_mask.numpy() for layer in iterand_tf.subnet_layers(model)]
    flips = sum((old != new).sum() for old, new in zip(before, after, strict=True))
    assert flips > 0
    assert history["mask_flip_ratio"] == [flips / sum(mask.size for mask in after)]


def test_the_host_gets_masks_only_to_save_them():
    events = Rerandomize(period=3, rate=0.5)
    fit(compiled(), events)
    assert all(keras.ops.is_tensor(mask) for mask in events._masks.masks)
    saved = [value for name, value in events.get_state().items() if name.startswith("mask/")]
    assert sum(np.unpackbits(mask).sum() for mask in saved) == sum(np.sum(mask) for mask in events._masks.masks)


def test_mixed_float16_counts_the_steps_of_the_inner_optimizer():
    keras.config.set_dtype_policy("mixed_float16")
    events = Events(period=3, rate=0.5)
    fit(model := compiled(), events)
    assert events.steps == [step for step in (3, 6) if step <= int(model.optimizer.iterations)] != []


@pytest.mark.parametrize("jit_compile", [True, False])
def test_with_and_without_xla(jit_compile):
    compiled_model, plain = compiled(jit_compile=jit_compile), compiled()
    fit(compiled_model, Rerandomize(period=3, rate=0.5))
    fit(plain, Rerandomize(period=3, rate=0.5))
    for ours, theirs in zip(weights(compiled_model), weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_replicas_agree_and_losses_are_those_of_one_device(strategy_scope):
    with strategy_scope():
        model = compiled()
    reference = compiled()
    histories = [fit(m, Rerandomize(period=3, rate=0.5), epochs=4).history["loss"] for m in (model, reference)]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    for layer in iterand_tf.subnet_layers(model):
        for variable in (layer.kernel.value, layer.scores.value):
            copies = [copy.numpy() for copy in getattr(variable, "values", [variable])]
            for copy in copies:
                np.testing.assert_array_equal(copy, copies[0])
