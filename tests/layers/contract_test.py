"""What every Subnet layer must do, run over a table; the stock Keras layer is the oracle.

A new layer is covered by adding rows to CASES.
"""

import contextlib
import inspect
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from capabilities import NO_CHANNELS_FIRST, runs_channels_first
from stock_layers import stock_of

import iterand_tf
from iterand_tf import Subnet, SubnetConv2D, SubnetDense, Supermask
from iterand_tf.layers import SubnetKernel

ROOT = pathlib.Path(__file__).parents[2]

STOCK = {SubnetDense: keras.layers.Dense, SubnetConv2D: keras.layers.Conv2D}
# name: (class, stock arguments, input shape)
CASES = {
    "dense": (SubnetDense, {"units": 5}, (4, 7)),
    "dense_bias_relu": (SubnetDense, {"units": 5, "use_bias": True, "activation": "relu"}, (4, 7)),
    "dense_3d": (SubnetDense, {"units": 5, "bias_initializer": "ones", "use_bias": True}, (4, 3, 7)),
    "conv": (SubnetConv2D, {"filters": 4, "kernel_size": 3}, (2, 8, 9, 3)),
    "conv_same_strides": (
        SubnetConv2D,
        {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "same", "use_bias": True},
        (2, 8, 9, 3),
    ),
    "conv_dilation": (SubnetConv2D, {"filters": 4, "kernel_size": 3, "dilation_rate": (2, 1)}, (2, 8, 9, 3)),
    "conv_channels_first": (
        SubnetConv2D,
        {"filters": 4, "kernel_size": 3, "data_format": "channels_first", "use_bias": True, "bias_initializer": "ones"},
        (2, 3, 8, 9),
    ),
    "conv_groups": (SubnetConv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, (2, 8, 9, 6)),
}
OF_REAL_NUMBERS = Supermask(0.4, weight_distribution="kaiming_uniform")


@pytest.fixture(params=CASES)
def case(request):
    _, arguments, _ = CASES[request.param]
    if arguments.get("data_format") == "channels_first" and not runs_channels_first():
        pytest.skip(NO_CHANNELS_FIRST)
    return CASES[request.param]


def built(case, method=None, **subnet_arguments):
    cls, arguments, shape = case
    layer = cls(**arguments, **({"method": method or Supermask(0.4), "seed": 3} | subnet_arguments))
    layer.build(shape)
    return layer, tf.random.stateless_normal(shape, seed=(1, 2))


def test_the_tables_hold_every_layer():
    layers = {value for value in vars(iterand_tf).values() if isinstance(value, type) and issubclass(value, Subnet)}
    assert layers - {Subnet} == {cls for cls, _, _ in CASES.values()} == set(STOCK)


# What only goes with kernels that are trained, and what goes with no Subnet.
TRAINING_THE_KERNEL = {"kernel_initializer": "ones", "kernel_regularizer": "l2", "kernel_constraint": "non_neg"}
OTHER_KERNELS = {"lora_rank": 2, "lora_alpha": 2.0, "quantization_config": {}}


def parameters(cls):
    return {each.name: each for each in inspect.signature(cls).parameters.values() if each.name != "kwargs"}


@pytest.mark.parametrize("cls", STOCK)
def test_the_signature_is_the_stock_layers_and_what_is_not_in_it_is_short(cls):
    ours, stock = parameters(cls), parameters(STOCK[cls])
    positional = [name for name, each in ours.items() if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == list(stock)[: len(positional)]
    assert positional[-1] in ("use_bias", "padding")
    assert set(ours) - set(stock) == {"sparsity", "method", "seed"}
    assert list(ours)[-3:] == ["sparsity", "method", "seed"]
    defaults = {name: each.default for name, each in stock.items()} | {"use_bias": False}
    defaults |= {"sparsity": None, "method": "supermask", "seed": None}
    assert {name: each.default for name, each in ours.items()} == {name: defaults[name] for name in ours}
    for name in ours:
        assert f"{name}:" in inspect.getdoc(cls)


# name of an argument of stock layers: a value that is not its default
OTHER_VALUES = {
    "activation": "relu", "use_bias": True, "bias_initializer": "ones", "bias_regularizer": "l2",
    "activity_regularizer": "l1", "bias_constraint": "non_neg", "strides": 2, "padding": "same",
    "data_format": "channels_first", "dilation_rate": 2, "groups": 2,
}  # fmt: skip


@pytest.mark.parametrize("cls", STOCK)
@pytest.mark.parametrize("method", ["supermask", "magnitude_pruning", "random_pruning"])
def test_every_argument_of_the_stock_layer_is_taken_or_refused(cls, method):
    needed = {"units": 4} if cls is SubnetDense else {"filters": 4, "kernel_size": 3}
    names = set(parameters(STOCK[cls])) - set(needed)
    assert names <= {*OTHER_VALUES, *TRAINING_THE_KERNEL, *OTHER_KERNELS}
    for name, value in (OTHER_VALUES | TRAINING_THE_KERNEL | OTHER_KERNELS).items():
        if name not in names:
            continue
        arguments = needed | {name: value}
        if name in OTHER_KERNELS or (name in TRAINING_THE_KERNEL and method == "supermask"):
            of_method = {"supermask": "Supermask", "magnitude_pruning": "MagnitudePruning"}.get(method, "RandomPruning")
            with pytest.raises(ValueError, match=rf"^{name} does not go with {of_method}; .* Received: {name}="):
                cls(**arguments, method=method)
        else:
            expected = STOCK[cls](**arguments).get_config()[name]
            layer = cls(**arguments, method=method)
            assert layer.get_config()[name] == layer.layer.get_config()[name] == expected
            assert cls.from_config(layer.get_config()).get_config() == layer.get_config()


def fresh_stock(case):
    cls, arguments, _ = case
    return STOCK[cls](**{"use_bias": False} | arguments)


def open_shape(case):
    """The shape of the inputs with all sizes open but that of the channels."""
    _, arguments, shape = case
    channel_axis = 1 if arguments.get("data_format") == "channels_first" else len(shape) - 1
    return tuple(size if axis == channel_axis else None for axis, size in enumerate(shape))


def test_a_symbolic_call_gives_what_the_stock_layers_does(case):
    layer, _ = built(case)
    for shape in (case[2], open_shape(case)):
        ours, stock = (each(keras.KerasTensor(shape)) for each in (layer, fresh_stock(case)))
        assert (ours.shape, ours.dtype) == (stock.shape, stock.dtype)
        assert layer.compute_output_shape(shape) == stock.shape


def test_sizes_may_be_open(case):
    layer, inputs = built(case)
    function = tf.function(layer.__call__, input_signature=[tf.TensorSpec(open_shape(case))], autograph=False)
    np.testing.assert_allclose(function(inputs), layer(inputs), rtol=1e-5, atol=1e-6)


def test_masks_are_treated_as_by_the_stock_layer(case):
    layer, stock = built(case)[0], fresh_stock(case)
    assert layer.supports_masking == stock.supports_masking
    if layer.supports_masking:
        mask = tf.constant([[True, False]])
        assert layer.compute_mask(None, mask) is mask


def test_losses_are_those_of_the_stock_layer(case):
    cls, arguments, shape = case
    regularizers = {"activity_regularizer": "l1", "bias_regularizer": "l2"}
    layer = cls(**arguments | regularizers)
    inputs = tf.random.stateless_normal(shape, seed=(1, 2))
    layer(inputs)
    stock = stock_of(layer, inputs)
    stock(inputs)
    assert len(layer.losses) == len(stock.losses) == 1 + layer.use_bias
    np.testing.assert_allclose(layer.losses, stock.losses, rtol=1e-5)


@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_outputs_are_those_of_the_stock_layer_with_the_masked_kernel(case, sparsity):
    layer, inputs = built(case, sparsity=sparsity)
    _, _, shape = case
    stock = fresh_stock(case)
    stock.build(shape)
    mask = layer.kernel_mask.numpy()
    assert mask.sum() == mask.size - round(sparsity * mask.size) == layer.num_kept
    stock.kernel.assign(np.where(mask == 1, layer.kernel.numpy(), 0))
    if layer.use_bias:
        stock.bias.assign(layer.bias)
    np.testing.assert_array_equal(layer(inputs), stock(inputs))
    assert layer.compute_output_shape(shape) == stock.compute_output_shape(shape)


def test_the_gradient_of_the_scores_is_that_of_the_effective_kernel_times_the_kernel(case):
    layer, inputs = built(case)
    stock = stock_of(layer, inputs)
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(tf.sin(layer(inputs)))
        stock_loss = tf.reduce_sum(tf.sin(stock(inputs)))
    expected = tape.gradient(stock_loss, stock.kernel.value) * layer.kernel
    np.testing.assert_allclose(tape.gradient(loss, layer.scores.value), expected, rtol=1e-5, atol=1e-6)


def test_only_scores_and_a_bias_are_trained(case):
    layer, _ = built(case)
    trained = {variable.name for variable in layer.trainable_variables}
    assert trained == {"scores", "bias"} if layer.use_bias else {"scores"}
    counts = ["num_kept", "num_draws", "rerandomized_at"]
    assert [variable.name for variable in layer.non_trainable_variables] == [*counts, "kernel"]


def test_abs_ranks_magnitudes(case):
    layer, _ = built(case, Supermask(0.4, score_transform="abs"))
    scores, mask = np.abs(layer.scores.numpy()), layer.kernel_mask.numpy() == 1
    assert scores[mask].min() >= scores[~mask].max()


def test_every_argument_round_trips(case):
    cls, arguments, _ = case
    regularizers = {"bias_regularizer": "l2", "bias_constraint": "non_neg", "activity_regularizer": "l1"}
    method = Supermask(
        0.3,
        score_transform="abs",
        weight_distribution="kaiming_uniform",
        weight_scale=0.5,
        score_distribution="uniform",
        score_scale=2.0,
    )
    layer = cls(**arguments, **regularizers, method=method, seed=7, name="mine")
    config = layer.get_config()
    again = cls.from_config(config)
    assert again.get_config() == config
    assert (again.method, again.seed, again.name, again.sparsity) == (method, 7, "mine", 0.3)
    assert config["bias_regularizer"]["class_name"] == "L2"
    assert config["bias_constraint"]["class_name"] == "NonNeg"
    assert config["activity_regularizer"]["class_name"] == "L1"


def saved(case, tmp_path):
    """A saved model of the layer alone, its file, and inputs."""
    layer, inputs = built(case)
    model = keras.Sequential([keras.Input(batch_shape=inputs.shape), layer])
    layer.scores.assign(-layer.scores)
    layer.rerandomize(step=1, rate=0.5)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras", inputs


def test_a_saved_model_loads(case, tmp_path):
    model, path, inputs = saved(case, tmp_path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert int(loaded.layers[0].num_draws.numpy()) == 2


@pytest.mark.parametrize("name", ["dense_bias_relu", "conv_groups"])
def test_a_saved_model_loads_in_a_fresh_process(name, tmp_path):
    model, path, inputs = saved(CASES[name], tmp_path)
    np.save(tmp_path / "inputs.npy", inputs)
    script = (
        "import sys, numpy as np, keras, iterand_tf\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "np.save('outputs.npy', model(np.load('inputs.npy')))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), model(inputs))


def test_a_subnet_of_the_stock_layer_is_the_same(case):
    """Arguments about training the kernel, which the layer of this class refuses, say nothing there."""
    cls, arguments, shape = case
    stock = STOCK[cls](**arguments, name="mine", kernel_regularizer="l2")
    layer = Subnet(stock, sparsity=0.7, seed=1)
    inputs = tf.random.stateless_normal(shape, seed=(1, 2))
    outputs = layer(inputs)
    assert (layer.name, layer.sparsity, layer.layer) == ("mine", 0.7, stock)
    twin = stock_of(layer, inputs)
    assert type(twin) is STOCK[cls]
    assert twin.name == "mine"
    np.testing.assert_array_equal(twin(inputs), outputs)
    pruned = layer.subnet_kernels[0].mask.numpy() == 0
    assert not np.signbit(twin.kernel.numpy()[pruned]).any()
    ours = cls(**{"use_bias": True} | arguments, sparsity=0.7, seed=1, name="mine")
    np.testing.assert_array_equal(ours(inputs), outputs)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_scores_in_float32(case, precision):
    channels_first = case[1].get("data_format") == "channels_first"
    if channels_first and not runs_channels_first(precision.removeprefix("mixed_")):
        pytest.skip(NO_CHANNELS_FIRST)
    layer, inputs = built(case, dtype=precision)
    exact, _ = built(case)
    layer.set_weights(exact.get_weights())
    outputs = layer(inputs)
    assert layer.scores.dtype == layer.kernel.dtype == "float32"
    assert outputs.dtype == layer.compute_dtype
    np.testing.assert_allclose(np.float32(outputs), exact(inputs), rtol=0.05, atol=0.1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(inputs), tf.float32))
    assert tape.gradient(loss, layer.scores.value).dtype == tf.float32
    np.testing.assert_array_equal(stock_of(layer, inputs)(inputs), outputs)


def test_draws_are_functions_of_seed_name_and_number(case):
    first, _ = built(case, name="a")
    again, _ = built(case, name="a")
    other_name, _ = built(case, name="b")
    other_seed, _ = built(case, name="a", seed=4)
    np.testing.assert_array_equal(first.kernel, again.kernel)
    np.testing.assert_array_equal(first.scores, again.scores)
    np.testing.assert_array_equal(first.kernel, first.subnet_kernels[0].draw(0))
    for other in (other_name, other_seed):
        assert (other.kernel.numpy() != first.kernel.numpy()).any()
        assert (other.scores.numpy() != first.scores.numpy()).any()


def test_rerandomize_keeps_the_kept_and_takes_the_next_draw_for_the_others(case):
    layer, inputs = built(case, OF_REAL_NUMBERS)
    first, mask, outputs = layer.kernel.numpy(), layer.kernel_mask.numpy() == 1, layer(inputs).numpy()
    before = first
    for number, step in enumerate((10, 10, 20), start=1):
        changed = layer.rerandomize(step, rate=0.5)
        after = layer.kernel.numpy()
        assert (after != before).sum() == changed > 0
        np.testing.assert_array_equal(after[mask], first[mask])
        np.testing.assert_array_equal(
            after[after != before], layer.subnet_kernels[0].draw(number).numpy()[after != before]
        )
        assert (int(layer.num_draws.numpy()), int(layer.subnet_kernels[0].rerandomized_at.numpy())) == (
            number + 1,
            step,
        )
        before = after
    np.testing.assert_array_equal(layer(inputs), outputs)
    layer.rerandomize(step=30, rate=1.0)
    assert (layer.kernel.numpy() != before)[~mask].all()


def test_rerandomize_counts_what_changed(case):
    layer, _ = built(case, sparsity=0.9)
    before = layer.kernel.numpy()
    assert layer.rerandomize(step=1, rate=1.0) == (layer.kernel.numpy() != before).sum()


def test_a_layer_that_is_not_trainable_keeps_its_kernel(case):
    layer, _ = built(case, OF_REAL_NUMBERS)
    layer.trainable = False
    before = layer.kernel.numpy()
    assert layer.rerandomize(step=1, rate=1.0) == 0
    np.testing.assert_array_equal(layer.kernel, before)
    assert int(layer.num_draws.numpy()) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.0}, {"sparsity": -0.1}, {"seed": -1}, {"seed": 0.5}, {"method": "iterand"}, {"method": 0.5}],
)
def test_refuses_arguments_out_of_range(case, wrong):
    cls, arguments, _ = case
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^{name} must be .* Received: {name}="):
        cls(**arguments, **wrong)


def test_a_frozen_layer_stays_frozen_in_its_configuration(case):
    cls, arguments, _ = case
    layer = cls(**arguments, trainable=False)
    assert layer.get_config()["trainable"] is False
    assert not cls.from_config(layer.get_config()).trainable


def test_trains_to_the_same_losses_on_one_and_on_two_devices(case, strategy_scope):
    """Both runs of the fixture are compared with a third, plain run."""

    def losses(scope):
        with scope():
            layer, inputs = built(case, name="layer")
            layer = type(layer).from_config(layer.get_config())
            model = keras.Sequential([keras.Input(inputs.shape[1:]), layer, keras.layers.Flatten()])
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        targets = np.ones(model.compute_output_shape(inputs.shape), np.float32)
        fit = model.fit(
            inputs.numpy(), targets, batch_size=2, epochs=3, shuffle=False, verbose=0,
            callbacks=[iterand_tf.Rerandomize(period=2, rate=0.5)],
        )  # fmt: skip
        return fit.history["loss"]

    np.testing.assert_allclose(losses(strategy_scope), losses(contextlib.nullcontext), rtol=1e-5)


def test_saving_and_loading_compute_no_mask(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((3,)), iterand_tf.SubnetDense(2)])
    masks = []
    monkeypatch.setattr(SubnetKernel, "mask", property(masks.append))
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras")
    assert not masks
