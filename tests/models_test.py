"""The networks: weight counts of the paper's table, one definition for dense and subnet."""

import keras
import numpy as np
import pytest

from iterand_tf import MagnitudePruning, Supermask, models, prune, set_sparsity, sparsity_report, subnet_layers

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
    return {"subnet": models.SubnetFactory(Supermask(0.6)), "dense": models.StockFactory()}[factory]


@pytest.mark.parametrize(("name", "shape", "classes", "width", "count"), WEIGHTS)
def test_weight_counts(name, shape, classes, width, count):
    model = models.build(name, shape, classes, width_factor=width)
    assert sparsity_report(model).total.num_weights == count


@pytest.mark.parametrize("name", models.NAMES)
def test_dense_and_subnet_have_one_topology(name):
    subnet, dense = (models.build(name, (32, 32, 1), 7, _layers(f), width_factor=0.125) for f in ("subnet", "dense"))
    assert [layer.name for layer in subnet.layers] == [layer.name for layer in dense.layers]
    assert [layer.output.shape for layer in subnet.layers] == [layer.output.shape for layer in dense.layers]
    kernels = [variable for variable in dense.trainable_variables if variable.name == "kernel"]
    assert sum(np.prod(kernel.shape) for kernel in kernels) == sparsity_report(subnet).total.num_weights
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
    model = models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(Supermask(0.6), head_sparsity=0.1))
    assert [layer.sparsity for layer in subnet_layers(model)] == [0.6, 0.6, 0.6, 0.6, 0.1]


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


@pytest.mark.parametrize(
    ("factory", "wrong"),
    [
        (models.StockFactory, {"weight_distribution": "gaussian"}),
        (models.StockFactory, {"weight_scale": -1.0}),
        (models.StockFactory, {"seed": -1}),
        (models.SubnetFactory, {"seed": -1}),
        (models.SubnetFactory, {"method": MagnitudePruning()}),
        (models.SubnetFactory, {"method": "supermask"}),
        (models.SubnetFactory, {"method": Supermask(mask="global"), "head_sparsity": 0.1}),
    ],
)
def test_factories_refuse_arguments_by_their_names(factory, wrong):
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match=rf"^{name} must be .* Received: {name}="):
        factory(**wrong)


def test_a_pruning_network_is_one_of_stock_layers_that_is_pruned():
    stock = models.build("conv2", (8, 8, 1), 10, models.StockFactory(), width_factor=0.25)
    model = prune(stock, {"head": 0.5, "*": 0.9}, verbose=False)
    assert [layer.name for layer in model.layers] == [layer.name for layer in stock.layers]
    assert {layer.method for layer in subnet_layers(model)} == {MagnitudePruning(0.9), MagnitudePruning(0.5)}
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1))
    set_sparsity(model, 0.0)
    np.testing.assert_allclose(model(images), stock(images), rtol=1e-5)


def test_kernels_that_are_ranked_together_share_what_is_kept_when_a_network_is_built():
    model = models.build("conv2", (8, 8, 1), 10, models.SubnetFactory(Supermask(0.6, mask="global")))
    total = sparsity_report(model).total
    assert total.num_kept == total.num_weights - round(0.6 * total.num_weights)
    kernels = [kernel for layer in subnet_layers(model) for kernel in layer.subnet_kernels]
    scores, mask = (
        np.concatenate([np.ravel(part) for part in parts])
        for parts in ([kernel.scores for kernel in kernels], [kernel.mask for kernel in kernels])
    )
    assert scores[mask == 1].min() >= scores[mask == 0].max()
    assert len({layer.sparsity for layer in sparsity_report(model).layers}) > 1
    assert type(model) is type(models.build("conv2", (8, 8, 1), 10, models.StockFactory()))


def test_a_head_sparsity_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"^head_sparsity must be at least 0 and below 1. Received: head_sparsity=2"):
        models.SubnetFactory(head_sparsity=2)


def test_models_of_build_are_known_by_more_than_names():
    assert models.from_pixels_to_logits(models.build("conv2", (8, 8, 1), 3))
    layers = [keras.layers.Dense(4, name="normalize"), keras.layers.Dense(2, activation="tanh", name="logits")]
    assert not models.from_pixels_to_logits(keras.Sequential([keras.Input((4,)), *layers]))
    inputs = keras.Input((4,))
    assert not models.from_pixels_to_logits(keras.Model(inputs, layers[1](layers[0](inputs))))
