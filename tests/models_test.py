"""The networks: weight counts of the paper's table, one definition for dense and subnet."""

import keras
import numpy as np
import pytest

import iterand_tf
from iterand_tf import models
from iterand_tf.training.network import num_kernel_entries

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
WEIGHTS = [
    ("conv6", CIFAR, 10, 0.25, 142_128),
    ("conv6", CIFAR, 10, 0.5, 566_368),
    ("conv6", CIFAR, 10, 1.0, 2_261_184),
    ("conv6", CIFAR, 10, 2.0, 9_036_160),
    ("resnet18", CIFAR, 10, 0.25, 708_288),
    ("resnet18", CIFAR, 10, 0.5, 2_804_928),
    ("resnet18", CIFAR, 10, 1.0, 11_164_352),
    ("resnet18", CIFAR, 10, 2.0, 44_576_448),
    ("resnet50", IMAGENET, 1000, 1.0, 25_502_912),
]


def _layers(factory):
    """Small draws: zero-width distributions cost nothing to check shapes with."""
    return {"subnet": models.SubnetFactory(sparsity=0.6), "dense": models.StockFactory()}[factory]


@pytest.mark.parametrize(("name", "shape", "classes", "width", "count"), WEIGHTS)
def test_weight_counts(name, shape, classes, width, count):
    model = models.build(name, shape, classes, width_factor=width)
    assert iterand_tf.sparsity_report(model).total.num_weights == count


@pytest.mark.parametrize("name", models.NAMES)
def test_dense_and_subnet_have_one_topology(name):
    subnet, dense = (models.build(name, (32, 32, 1), 7, _layers(f), width_factor=0.125) for f in ("subnet", "dense"))
    assert [layer.name for layer in subnet.layers] == [layer.name for layer in dense.layers]
    assert [layer.output.shape for layer in subnet.layers] == [layer.output.shape for layer in dense.layers]
    assert num_kernel_entries(dense) == iterand_tf.sparsity_report(subnet).total.num_weights
    assert {variable.name for variable in subnet.trainable_variables} == {"scores"}
    assert subnet.output.shape == (None, 7)


@pytest.mark.parametrize("name", ["conv2", "resnet18", "resnet50"])
def test_answers_with_a_logit_for_each_class(name):
    subnet = models.build(name, (32, 32, 1), 7, _layers("subnet"), width_factor=0.125)
    assert subnet(np.zeros((2, 32, 32, 1))).shape == (2, 7)


@pytest.mark.parametrize(
    ("stem", "size", "pixels"), [(None, 32, 32), (None, 96, 24), ("cifar", 96, 96), ("imagenet", 32, 8)]
)
def test_stems(stem, size, pixels):
    model = models.build("resnet18", (size, size, 3), 10, width_factor=0.125, stem=stem)
    assert model.get_layer("stage1_block1_add").output.shape[1:3] == (pixels, pixels)
    assert model.get_layer("stem_conv").filters == 64


def test_kernels_of_equal_shape_differ_and_seeds_matter():
    one, two = (models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(seed=seed)) for seed in (1, 2))
    assert (one.get_layer("stage1_conv2").kernel.numpy() != two.get_layer("stage1_conv2").kernel.numpy()).any()
    deep = models.build("resnet18", CIFAR, 10, width_factor=0.125)
    first, second = (deep.get_layer(f"stage1_block2_{i}_conv").kernel.numpy() for i in (1, 2))
    assert (first != second).any()


def test_head_sparsity():
    model = models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(sparsity=0.6, head_sparsity=0.1))
    assert [layer.sparsity for layer in iterand_tf.subnet_layers(model)] == [0.6, 0.6, 0.6, 0.6, 0.1]


def test_batch_normalization_is_the_papers():
    for factory, affine in (("subnet", False), ("dense", True)):
        layer = models.build("resnet18", CIFAR, 10, _layers(factory), 0.125).get_layer("stem_bn")
        assert (layer.momentum, layer.epsilon, layer.center, layer.scale) == (0.9, 1e-5, affine, affine)


def test_dense_models_save_and_load(tmp_path):
    model = models.build("conv2", (8, 8, 1), 10, _layers("dense"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1))
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize(
    "wrong", [{"name": "vgg16"}, {"width_factor": 0}, {"stem": "mnist"}, {"input_shape": (4, 4, 1), "name": "conv6"}]
)
def test_refuses_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="Received"):
        models.build(**({"name": "conv2", "input_shape": (8, 8, 1), "num_classes": 10} | wrong))


@pytest.mark.parametrize("factory", [models.SubnetFactory, models.StockFactory])
@pytest.mark.parametrize("wrong", [{"weight_distribution": "gaussian"}, {"weight_scale": -1.0}, {"seed": -1}])
def test_factories_refuse_arguments_by_their_names(factory, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^{name} must be .* Received: {name}="):
        factory(**wrong)


def test_a_head_sparsity_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"^head_sparsity must be at least 0 and below 1. Received: head_sparsity=2"):
        models.SubnetFactory(head_sparsity=2)


def test_models_of_build_are_known_by_more_than_names():
    assert models.from_pixels_to_logits(models.build("conv2", (8, 8, 1), 3))
    layers = [keras.layers.Dense(4, name="normalize"), keras.layers.Dense(2, activation="tanh", name="logits")]
    assert not models.from_pixels_to_logits(keras.Sequential([keras.Input((4,)), *layers]))
    inputs = keras.Input((4,))
    assert not models.from_pixels_to_logits(keras.Model(inputs, layers[1](layers[0](inputs))))
