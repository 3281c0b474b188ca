"""A Subnet adopts the very layer that it is given: what it may be, what is saved of it, and what it must not do."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from stock_layers import stock_of

import iterand_tf
from iterand_tf import Subnet, SubnetConv2D, SubnetDense

layers = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
METHODS = ("supermask", "magnitude_pruning", "random_pruning")


class OfTwoArguments(keras.layers.Layer):
    """A user's layer whose configuration does not say what it was made of, and so cannot be made again."""

    def __init__(self, units, activation):
        super().__init__()
        self.dense = layers.Dense(units, activation)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("built", [False, True])
def test_the_layer_is_the_one_that_was_given(method, built):
    inner = layers.Dense(4, activation="relu")
    if built:
        inner.build(INPUTS.shape)
        inner.bias.assign([1.0, 2.0, 3.0, 4.0])
        kernel = inner.kernel.numpy()
    subnet = Subnet(inner, 0.5, method, seed=1)
    assert subnet.layer is inner
    outputs = subnet(INPUTS)
    np.testing.assert_allclose(outputs, stock_of(subnet, INPUTS)(INPUTS), rtol=1e-5)
    assert subnet.subnet_kernels[0].variable is inner.kernel
    if built:
        np.testing.assert_array_equal(inner.bias, [1, 2, 3, 4])
        assert (inner.kernel.numpy() == kernel).all() == (method != "supermask")


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_its_configuration_does_not_make_again(method):
    with pytest.raises(TypeError):
        OfTwoArguments.from_config(OfTwoArguments(4, "relu").get_config())
    subnet = Subnet(OfTwoArguments(4, "relu"), 0.5, method, seed=1)
    assert subnet(INPUTS).shape == (4, 4)
    assert [kernel.num_kept for kernel in subnet.subnet_kernels] == [12]
    model = keras.Sequential([keras.Input((6,)), subnet])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model(INPUTS).numpy()
    model.fit(INPUTS, np.ones((4, 4)), epochs=2, verbose=0)
    assert (model(INPUTS).numpy() != before).any()


def test_a_layer_with_a_function_that_is_not_registered():
    inner = keras.Sequential([layers.Dense(4), layers.Lambda(lambda x: 3 * x)])
    subnet = Subnet(inner, 0.5, seed=1)
    dense = inner.layers[0]
    outputs = subnet(INPUTS)
    np.testing.assert_allclose(outputs, 3 * INPUTS @ np.asarray(subnet.subnet_kernels[0].effective()), rtol=1e-5)
    assert subnet.subnet_kernels[0].variable is dense.kernel


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_layer_is_chosen_from_and_stays_frozen(method):
    inner = layers.Dense(4, trainable=False)
    inner.build(INPUTS.shape)
    kernel = inner.kernel.numpy()
    subnet = Subnet(inner, 0.5, method, seed=1)
    assert not subnet.trainable
    assert not subnet.trainable_variables
    assert [each.num_kept for each in subnet.subnet_kernels] == [12]
    assert (np.asarray(subnet.subnet_kernels[0].baked()) == 0).sum() == 12
    assert (inner.kernel.numpy() == kernel).all() == (method != "supermask")
    again = Subnet.from_config(subnet.get_config())
    assert not again.trainable
    again(INPUTS)
    assert [each.num_kept for each in again.subnet_kernels] == [12]


class Parts(keras.Model):
    """A user's block, of which some layers are frozen."""

    def __init__(self, frozen=False, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(5, name="first"), layers.Dense(4, name="second")
        self.first.trainable = not frozen

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_what_is_frozen_inside_a_layer_that_is_trained_stays_as_it_is():
    inner = Parts(frozen=True)
    inner(INPUTS)
    kernel = inner.first.kernel.numpy()
    subnet = Subnet(inner, 0.5, seed=1)
    subnet(INPUTS)
    assert [each.shape for each in subnet.subnet_kernels] == [(5, 4)]
    np.testing.assert_array_equal(inner.first.kernel, kernel)


FREEZING = {
    "never": lambda part, when: None,
    "before saving": lambda part, when: setattr(part, "trainable", False) if when == "before" else None,
    "after loading": lambda part, when: setattr(part, "trainable", False) if when == "after" else None,
    "and unfrozen": lambda part, when: setattr(part, "trainable", when == "after"),
}
PARTS = {
    "the model": lambda model: model,
    "the subnet": lambda model: model.layers[-1],
    "the layer": lambda model: model.layers[-1].layer,
    "a part of the layer": lambda model: model.layers[-1].layer.layers[0],
}


def arrays(path):
    """The arrays in a .keras file, by their place in it."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("freezing", FREEZING)
def test_what_a_file_holds_does_not_depend_on_trainable(freezing, part, method, tmp_path):
    def model():
        inner = keras.Sequential([layers.Dense(5), layers.BatchNormalization(), layers.Dense(4)])
        return keras.Sequential([keras.Input((6,)), Subnet(inner, 0.4, method, seed=1, name="mine")])

    saved = model()
    kernels = saved.layers[-1].subnet_kernels
    for number, kernel in enumerate(kernels):
        ranked = kernel.variable if kernel.scores is None else kernel.scores
        ranked.assign(np.random.default_rng(number).normal(size=kernel.shape))
        kernel.num_draws.assign(5 + number)
    saved.save(tmp_path / "before.keras")
    FREEZING[freezing](PARTS[part](saved), "before")
    expected = saved(INPUTS).numpy()
    saved.save(tmp_path / "model.keras")
    saved.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    made = model()
    made.load_weights(tmp_path / "model.weights.h5")
    for other in (loaded, made):
        FREEZING[freezing](PARTS[part](other), "after")
        np.testing.assert_array_equal(other(INPUTS), expected)
        assert [kernel.name for kernel in other.layers[-1].subnet_kernels] == ["kernel", "kernel"]
        assert [int(kernel.num_draws.numpy()) for kernel in other.layers[-1].subnet_kernels] == [5, 6]
        for ours, theirs in zip(other.layers[-1].subnet_kernels, kernels, strict=True):
            np.testing.assert_array_equal(ours.variable, theirs.variable)
            np.testing.assert_array_equal(ours.mask, theirs.mask)
    loaded.save(tmp_path / "again.keras")
    held = [arrays(tmp_path / f"{name}.keras") for name in ("before", "model", "again")]
    for other in held[1:]:
        assert list(other) == list(held[0])
        for name, array in other.items():
            np.testing.assert_array_equal(array, held[0][name])


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_tensorflow_restores_everything(method, tmp_path):
    def model(seed):
        layer = Subnet(keras.Sequential([layers.Dense(5), layers.Dense(4)]), 0.4, method, seed=seed, name="mine")
        other = SubnetDense(2, method=method, seed=seed, name="other")
        return keras.Sequential([keras.Input((6,)), layer, other])

    saved, restored = model(1), model(2)
    kernels = [[kernel for layer in each.layers for kernel in layer.subnet_kernels] for each in (saved, restored)]
    for number, kernel in enumerate(kernels[0]):
        kernel.num_draws.assign(3 + number)
        kernel.rerandomized_at.assign(7)
    iterand_tf.set_sparsity(saved, 0.6)
    path = tf.train.Checkpoint(saved).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(restored).restore(path).assert_consumed()
    np.testing.assert_array_equal(restored(INPUTS), saved(INPUTS))
    for ours, theirs in zip(*kernels, strict=True):
        for variable, other in zip(ours.own_variables, theirs.own_variables, strict=True):
            np.testing.assert_array_equal(variable, other)
        np.testing.assert_array_equal(ours.variable, theirs.variable)


@pytest.mark.parametrize(
    ("make", "shape", "kernels"),
    [
        (lambda: SubnetDense(4, seed=1), (6,), 1),
        (lambda: SubnetConv2D(4, 3, padding=1, seed=1), (6, 6, 2), 1),
        (lambda: Subnet(layers.LSTM(4), seed=1), (6, 4), 2),
        (lambda: Subnet(layers.Dense(5), method="magnitude_pruning"), (6,), 1),
        (lambda: Subnet(Parts(), seed=1), (6,), 2),
    ],
)
def test_a_file_holds_each_kernel_once(make, shape, kernels, tmp_path):
    model = keras.Sequential([keras.Input(shape), make()])
    model.save(tmp_path / "model.keras")
    held = arrays(tmp_path / "model.keras")
    layer = model.layers[-1]
    assert len(layer.subnet_kernels) == kernels
    # Keras does not save the seeds of a recurrent layer's dropout.
    variables = [variable for variable in model.variables if "seed_generator" not in variable.path]
    assert sum(array.size for array in held.values()) == sum(np.prod(each.shape, dtype=int) for each in variables)
    for kernel in layer.subnet_kernels:
        same = [name for name, array in held.items() if array.shape == kernel.shape]
        assert sum(np.array_equal(held[name], kernel.variable) for name in same) == 1
        if kernel.scores is not None:
            assert sum(np.array_equal(held[name], kernel.scores) for name in same) == 1


def test_a_layer_that_assigns_to_its_kernel_in_a_call_is_refused():
    layer = Subnet(layers.SpectralNormalization(layers.Dense(4)), seed=1)
    assert layer(INPUTS).shape == (4, 4)
    for call in (layer, tf.function(layer, autograph=False)):
        with pytest.raises(
            ValueError, match=r"assigns to its kernel while it is called.* SpectralNormalization\(Subnet"
        ):
            call(INPUTS, training=True)
    kernel = layer.subnet_kernels[0]
    kernel.variable.assign(kernel.draw(0))
    assert layer(INPUTS).shape == (4, 4)


def test_spectral_normalization_around_a_subnet_of_a_pruned_layer():
    layer = layers.SpectralNormalization(Subnet(layers.Dense(4), method="magnitude_pruning"))
    assert layer(INPUTS, training=True).shape == (4, 4)


OLD_CONFIG = {
    "name": "subnet_dense",
    "trainable": True,
    "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None},
    "units": 2,
    "activation": "linear",
    "use_bias": False,
    "bias_initializer": {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None},
    "bias_regularizer": None,
    "activity_regularizer": None,
    "bias_constraint": None,
    "sparsity": 0.5,
    "method": "iterand",
    "mask": "per_kernel",
    "min_per_channel": 0,
    "binarize": False,
    "score_transform": "identity",
    "weight_distribution": "signed_constant",
    "weight_scale": 1.0,
    "score_distribution": "kaiming_uniform",
    "score_scale": 1.0,
    "seed": 0,
}
OF_A_LAYER = ("units", "activation", "use_bias", "bias_initializer", "bias_regularizer", "bias_constraint",
              "activity_regularizer")  # fmt: skip


@pytest.mark.parametrize("cls", [SubnetDense, SubnetConv2D, Subnet])
def test_a_file_of_version_0_2_is_refused_in_one_sentence(cls):
    config = OLD_CONFIG
    if cls is not SubnetDense:
        config = {name: value for name, value in OLD_CONFIG.items() if name not in OF_A_LAYER}
    if cls is SubnetConv2D:
        config |= {"filters": 2, "kernel_size": (3, 3), "padding": "valid"}
    if cls is Subnet:
        config |= {
            "layer": {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None},
            "kernel_names": ["*kernel"],
        }
    whole = {
        "module": "iterand_tf.layers",
        "class_name": cls.__name__,
        "config": config,
        "registered_name": f"iterand_tf>{cls.__name__}",
        "build_config": {"input_shape": [None, 3]},
    }
    for load in (lambda: cls.from_config(config), lambda: keras.saving.deserialize_keras_object(whole)):
        with pytest.raises(
            ValueError, match=r"by iterand_tf 0\.2, which 1\.0 does not read; load it .*layer=subnet_dense"
        ):
            load()
