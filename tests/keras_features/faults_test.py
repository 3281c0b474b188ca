"""Ordinary features of Keras beside a Subnet: each works as with the stock layer, or is refused in one sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf import Subnet, SubnetDense, bake, to_subnet

layers = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)


def copies(model):
    """A Subnet that keeps all kernel entries, and its bake: both answer as the model does."""
    converted = to_subnet(model, 0.0, kernels="keep", verbose=False)
    return converted, bake(converted)


def test_quantize_is_refused():
    model = keras.Sequential([keras.Input((16,)), SubnetDense(8), SubnetDense(4)])
    before = model(INPUTS)
    with pytest.raises(ValueError, match=r"quantize would replace the masked kernel .* call it on bake\(model\)"):
        model.quantize("int8")
    np.testing.assert_array_equal(model(INPUTS), before)
    bake(model).quantize("int8")


@pytest.mark.parametrize("layer", [{"lora_rank": 2}, {"dtype": "int8_from_float32"}], ids=str)
def test_kernels_in_parts_are_refused(layer):
    with pytest.raises(ValueError, match="would replace the masked kernel of a Subnet"):
        Subnet(layers.Dense(4, **layer))(INPUTS)


def test_lora_is_refused_afterwards_too():
    layer = Subnet(layers.Dense(4))
    layer(INPUTS)
    with pytest.raises(ValueError, match="enable_lora would replace"):
        layer.layer.enable_lora(2)


def test_spectral_normalization_goes_around_a_subnet():
    inside = Subnet(layers.SpectralNormalization(layers.Dense(4)))
    inside(INPUTS)
    kernel = inside.subnet_kernels[0].variable.numpy()
    with pytest.raises(ValueError, match=r"put the Subnet inside, as in SpectralNormalization\(Subnet\(layer\)\)"):
        inside(INPUTS, training=True)
    np.testing.assert_array_equal(inside.subnet_kernels[0].variable, kernel)


@pytest.mark.parametrize("scope", [keras.RematScope("full"), keras.RematScope("activations")], ids=["full", "some"])
def test_scores_have_their_gradient_under_remat(scope):
    def gradients():
        model = keras.Sequential([keras.Input((16,))])
        model.add(SubnetDense(8, activation="relu", seed=0, name="a"))
        model.add(SubnetDense(1, seed=0, name="b"))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(INPUTS)))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    expected = gradients()
    with scope:
        found = gradients()
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5)
        assert np.abs(gradient).max() > 0


def test_adapted_boundaries_are_copied():
    bins = layers.Discretization(num_bins=4, output_mode="one_hot")
    bins.adapt(3 * np.arange(100.0)[:, None])
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(bins(inputs))))
    values = np.linspace(0, 300, 20, dtype=np.float32)[:, None]
    for copy in copies(model):
        np.testing.assert_allclose(copy(values), model(values), rtol=1e-6)


@pytest.mark.parametrize(
    ("lookup", "dtype", "words"),
    [(layers.IntegerLookup, "int64", [5, 7, 9, 9]), (layers.StringLookup, "string", ["a", "b", "b"])],
)
def test_vocabularies_are_copied(lookup, dtype, words):
    table = lookup()
    table.adapt(np.array(words))
    inputs = keras.Input((1,), dtype=dtype)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Embedding(5, 4)(table(inputs)))))
    given = tf.constant([[word] for word in words])
    for copy in copies(model):
        np.testing.assert_allclose(copy(given), model(given), rtol=1e-6)


@pytest.mark.parametrize("activation", ["silu", "swish"])
def test_custom_gradients_are_exported(activation, tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, activation=activation), layers.Dense(2)])
    assert iterand_tf.export_saved_model(model, tmp_path).max_abs_difference < 1e-5


@pytest.mark.parametrize("loss", [lambda y_true, y_pred: keras.ops.mean(keras.ops.square(y_pred))], ids=["own loss"])
def test_what_a_model_was_compiled_with_does_not_matter(loss, tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(2)])
    model.compile("sgd", loss)
    converted = to_subnet(model, verbose=False)
    assert model.compiled
    assert not converted.compiled
    converted.compile("sgd", loss)
    assert not bake(converted).compiled
    assert iterand_tf.export_saved_model(converted, tmp_path).max_abs_difference < 1e-5


def test_set_sparsity_changes_all_layers_or_none():
    wide, narrow = SubnetDense(4, name="wide"), SubnetDense(4, method=iterand_tf.Supermask(min_per_channel=2))
    model = keras.Sequential([keras.Input((16,)), wide, narrow])
    with pytest.raises(ValueError, match="min_per_channel=2 keeps more"):
        iterand_tf.set_sparsity(model, 0.95)
    assert (wide.sparsity, wide.num_kept) == (0.5, 32)
    with pytest.raises(ValueError, match="needs a model with Subnet layers"):
        iterand_tf.set_sparsity(keras.Sequential([keras.Input((16,)), layers.Dense(2)]), 0.5)


def test_weights_of_another_sparsity_fit_the_pattern():
    dense, pattern = (
        SubnetDense(16, method=iterand_tf.Supermask(**each)) for each in ({"sparsity": 0.9}, {"mask": "2:4"})
    )
    for layer in (dense, pattern):
        layer.build((None, 8))
    pattern.set_weights(dense.get_weights())
    assert pattern.num_kept == 13 == int(pattern.kernel_mask.numpy().sum())
    dense.set_sparsity(0.0)
    pattern.set_weights(dense.get_weights())
    assert pattern.num_kept == 64 == int(pattern.kernel_mask.numpy().sum())


def test_integer_weights_of_a_layer_inside_stay_integers():
    class Counter(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight((input_shape[-1], 2), "ones", name="kernel")
            self.calls = self.add_weight((), "zeros", "int32", trainable=False, name="calls")

        def call(self, inputs):
            return inputs @ self.kernel

    layer = Subnet(Counter())
    layer(INPUTS)
    assert layer.layer.calls.dtype == "int32"
    assert [kernel.name for kernel in layer.subnet_kernels] == ["kernel"]


def test_names_of_kernels_may_be_one_pattern():
    layer = Subnet(layers.Embedding(5, 4), kernel_names="embeddings", seed=0)
    layer(np.array([[1, 2]]))
    assert [kernel.name for kernel in layer.subnet_kernels] == ["embeddings"]


def test_a_layer_in_two_subnets_is_refused():
    shared = layers.Dense(3)
    Subnet(shared)(INPUTS)
    with pytest.raises(ValueError, match="shares a kernel with a layer that is in another Subnet"):
        Subnet(shared)(INPUTS)


@keras.saving.register_keras_serializable("faults_test")
class WithoutBuild(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(4), layers.Dense(3)

    def call(self, inputs):
        return self.last(keras.ops.relu(self.first(inputs)))


@pytest.mark.filterwarnings("ignore:`build")
def test_a_block_that_was_called_before_is_saved_and_cloned(tmp_path):
    block = WithoutBuild()
    block(INPUTS)
    inputs = keras.Input((16,))
    model = keras.Model(inputs, Subnet(block, 0.5, seed=0)(inputs))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(INPUTS), model(INPUTS))
    (clone,) = iterand_tf.subnet_layers(keras.models.clone_model(model))
    assert len(clone.subnet_kernels) == 2


def test_attributes_of_a_functional_subclass_are_copied():
    class Scaled(keras.Model):
        def __init__(self, *args, alpha=1.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.alpha = alpha

    inputs = keras.Input((16,))
    model = Scaled(inputs, layers.Dense(2)(inputs), alpha=0.1)
    model.temperature = 3.0
    converted = to_subnet(model, verbose=False)
    for copy in (converted, bake(converted)):
        assert (type(copy), copy.alpha, copy.temperature) == (Scaled, 0.1, 3.0)


def test_kernels_of_two_methods_are_not_ranked_together():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])
    methods = {"a": iterand_tf.Supermask(mask="global"), "b": iterand_tf.MagnitudePruning(mask="global")}
    with pytest.raises(ValueError, match="ranked together have one method"):
        to_subnet(model, methods, verbose=False)


def test_a_layer_that_was_frozen_while_others_share_joins_them_again():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4), layers.Dense(2)])
    subnet = to_subnet(model, 0.5, iterand_tf.Supermask(mask="global"), verbose=False)
    first = subnet.layers[0]
    kept = first.subnet_kernels[0].num_kept
    first.trainable = False
    iterand_tf.set_sparsity(subnet, 0.75)
    assert first.subnet_kernels[0].num_kept == kept
    first.trainable = True
    iterand_tf.set_sparsity(subnet, 0.75)
    assert iterand_tf.sparsity_report(subnet).total.num_kept == 72 - 54


def test_the_sparsity_is_that_of_loaded_weights():
    sparse, layer = SubnetDense(10, sparsity=0.9), SubnetDense(10)
    for each in (sparse, layer):
        each.build((None, 10))
    layer.set_weights(sparse.get_weights())
    assert layer.sparsity == pytest.approx(0.9)


def test_arguments_are_checked():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4, name="body"), layers.Dense(2, name="head")])
    assert [layer.name for layer in iterand_tf.subnet_layers(to_subnet(model, exclude="head", verbose=False))] == [
        "body"
    ]
    with pytest.raises(ValueError, match="prune keeps trained kernels"):
        iterand_tf.prune(model, iterand_tf.Supermask())
    with pytest.raises(ValueError, match="binarize must be True or False"):
        iterand_tf.Supermask(binarize="no")
    with pytest.raises(ValueError, match="sparsity must be a number, a mapping, a function or a method object"):
        to_subnet(model, iterand_tf.Supermask)
    subnet = to_subnet(model, verbose=False)
    with pytest.raises(ValueError, match="rate must be a number"):
        iterand_tf.rerandomize_model(subnet, lambda step: "often")
    assert iterand_tf.rerandomize_model(subnet, 1.0, mode=lambda kernel, *_: np.zeros(kernel.shape)) == 36
    assert iterand_tf.rerandomize_model(subnet, 0) == 0
    assert [
        int(kernel.num_draws.numpy()) for layer in iterand_tf.subnet_layers(subnet) for kernel in layer.subnet_kernels
    ] == [2, 2]
