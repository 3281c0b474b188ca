"""to_subnet and prune: any model, what is chosen from and what is left, and bake, the way back."""

import contextlib

import keras
import numpy as np
import pytest

import iterand_tf
from iterand_tf import (
    MagnitudePruning,
    RandomPruning,
    Supermask,
    bake,
    prune,
    set_sparsity,
    sparsity_report,
    subnet_layers,
    to_subnet,
)

layers = keras.layers
IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
LABELS = np.arange(8) % 4


def nested():
    shared = layers.Dense(6, name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="dense")], name="inner")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="dense")], name="other")
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    joined = layers.Add()([shared(inner(one)), other(two), shared(other(one))])
    return keras.Model([one, two], {"a": layers.Dense(2, name="a")(joined), "b": layers.Dense(3, name="b")(joined)})


@keras.saving.register_keras_serializable(package="test")
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.steps = [layers.Dense(units, activation="relu"), layers.Dense(2)]

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return inputs

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_nested_shared_and_several_inputs_and_outputs(tmp_path, capsys):
    model = nested()
    subnet = to_subnet(model, 0.5, seed=0)
    assert "5 layers with 114 kernel entries are chosen from" in capsys.readouterr().out
    assert sorted(layer.name for layer in subnet_layers(subnet)) == ["a", "b", "dense", "dense", "shared"]
    first, second = (layer for layer in subnet_layers(subnet) if layer.name == "dense")
    assert (first.subnet_kernels[0].variable.numpy() != second.subnet_kernels[0].variable.numpy()).any()
    assert [variable.name for variable in model.trainable_variables].count("kernel") == 5
    inputs = {"one": np.ones((2, 4), np.float32), "two": np.full((2, 4), -1, np.float32)}
    outputs, baked = subnet(inputs), bake(subnet)
    assert not any(subnet_layers(baked))
    for name in ("a", "b"):
        np.testing.assert_allclose(baked(inputs)[name], outputs[name], rtol=1e-5)
    subnet.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs)["a"], outputs["a"])
    again = to_subnet(model, 0.5, seed=0, verbose=False)
    np.testing.assert_array_equal(again(inputs)["a"], outputs["a"])


@keras.saving.register_keras_serializable(package="test")
class Block(keras.layers.Layer):
    """A user's layer: sublayers without names of their own, a plain variable, and names that contain its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gain = keras.Variable(np.ones(4, np.float32))
        self.steps = [layers.Dense(4, activation="relu"), layers.Dense(4)]
        self.norm = layers.BatchNormalization()
        self.self_block, self.cross_block = layers.Dense(4, name="self_block"), layers.Dense(4, name="cross_block")

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return self.gain * self.norm(self.self_block(inputs) + self.cross_block(inputs))


@keras.saving.register_keras_serializable(package="test")
class TwoInputs(keras.Model):
    def __init__(self, frozen=False, **kwargs):
        super().__init__(**kwargs)
        self.frozen = frozen
        self.backbone, self.head = layers.Dense(4), layers.Dense(2)
        self.backbone.trainable = not frozen
        self.scaled = layers.Normalization()

    def call(self, inputs):
        one, two = inputs.values() if isinstance(inputs, dict) else inputs
        return self.head(self.backbone(self.scaled(one)) + self.backbone(two))

    def get_config(self):
        return super().get_config() | {"frozen": self.frozen}


def with_block():
    return keras.Sequential([keras.Input((4,)), Block(name="block"), layers.Dense(2)])


def two_inputs(frozen=False, named=False):
    model = TwoInputs(frozen)
    model.scaled.adapt(np.random.default_rng(1).normal(size=(50, 4)) * 3 + 1)
    model(PAIR if named else list(PAIR.values()))
    return model


PAIR = {"one": np.ones((3, 4), np.float32), "two": np.full((3, 4), -1, np.float32)}


@pytest.mark.parametrize("make", [with_block, two_inputs, lambda: two_inputs(named=True), nested])
def test_all_weights_are_taken_over(make):
    """With nothing removed, a model whose kernels are kept answers as it did, and so does its bake."""
    model = make()
    for number, variable in enumerate(model.variables):
        if variable.trainable:
            variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    shape = model.get_build_config()["input_shape"]
    inputs = PAIR if isinstance(shape, dict) or len(model.layers) > 6 else list(PAIR.values())
    inputs = PAIR["one"] if isinstance(model, keras.Sequential) else inputs
    subnet = to_subnet(model, 0.0, kernels="keep", verbose=False)
    for other in (subnet, bake(subnet)):
        keras.tree.map_structure(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5), other(inputs), model(inputs)
        )


def test_frozen_layers_inside_of_a_model_of_ones_own():
    model = two_inputs(frozen=True)
    subnet = to_subnet(model, 0.0, verbose=False)
    assert [kernel.shape for layer in subnet_layers(subnet) for kernel in layer.subnet_kernels] == [(4, 2)]
    np.testing.assert_array_equal(subnet.backbone.kernel, model.backbone.kernel)
    late = two_inputs()
    late.backbone.trainable = False
    subnet = to_subnet(late, verbose=False)
    assert [kernel.shape for layer in subnet_layers(subnet) for kernel in layer.subnet_kernels] == [(4, 2)]
    assert not subnet.backbone.trainable
    np.testing.assert_array_equal(subnet.backbone.kernel, late.backbone.kernel)


def test_what_stays_as_it_is_keeps_its_gains_and_is_trained_as_before():
    for frozen in (True, False):
        model = conv_net()
        model.get_layer("bn").trainable = not frozen
        model.get_layer("bn").gamma.assign([4.0] * 4)
        subnet = to_subnet(model, verbose=False)
        np.testing.assert_array_equal(subnet.get_layer("bn").gamma, [4] * 4)
        assert subnet.get_layer("bn").trainable != frozen
        assert subnet.get_layer("bn") is not model.get_layer("bn")


def test_layers_that_are_not_trainable_are_left_and_patterns_are_for_the_others():
    model = conv_net()
    model.get_layer("conv").trainable = False
    subnet = to_subnet(model, {"hidden": 0.1, "*": 0.2}, verbose=False)
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("hidden", 0.1), ("head", 0.2)]


def test_a_subclassed_model():
    model = Subclassed()
    model(np.ones((2, 3)))
    subnet = to_subnet(model, 0.5, seed=1)
    inputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    subnet.compile("sgd", "mse")
    subnet.fit(inputs, np.ones((8, 2)), verbose=0, callbacks=[iterand_tf.Rerandomize(1, 0.5)])
    assert sparsity_report(subnet).total.num_weights == 3 * 4 + 4 * 2
    np.testing.assert_allclose(bake(subnet)(inputs), subnet(inputs), rtol=1e-5)


def conv_net():
    steps = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn"), layers.Flatten()]
    return keras.Sequential(
        [keras.Input((8, 8, 1)), *steps, layers.Dense(4, name="hidden"), layers.Dense(2, name="head")]
    )


def without_normalization():
    steps = [layers.Conv2D(4, 3, name="conv"), layers.ReLU(), layers.Flatten(), layers.Dense(2, name="head")]
    return keras.Sequential([keras.Input((8, 8, 1)), *steps])


def test_sparsities_by_pattern_exclusions_and_frozen_layers(capsys):
    model = conv_net()
    model.get_layer("hidden").trainable = False
    subnet = to_subnet(model, {"conv*": 0.6, "hidden": 0.5, "head": 0.2}, exclude=["head"])
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("conv", 0.6)]
    printed = capsys.readouterr().out
    assert printed == (
        "to_subnet: 1 layers with 36 kernel entries are chosen from; left as they are: 2 without a kernel, "
        "1 not trainable (hidden), 1 excluded (head)\n"
    )
    subnet = to_subnet(conv_net(), {"conv": 0.6}, verbose=False)
    assert [layer.name for layer in subnet_layers(subnet)] == ["conv"]


def test_what_is_not_a_kernel_is_copied():
    model = conv_net()
    model.get_layer("bn").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    model.get_layer("head").bias.assign([5.0, 6.0])
    subnet = to_subnet(model, verbose=False)
    np.testing.assert_array_equal(subnet.get_layer("bn").moving_mean, [1, 2, 3, 4])
    np.testing.assert_array_equal(subnet.get_layer("head").bias, [5, 6])


@pytest.mark.parametrize(
    ("model", "arguments", "sentence"),
    [
        (conv_net, {"sparsity": {"nothing*": 0.5}}, r"matches 'nothing\*'; the paths are conv, hidden, head"),
        (conv_net, {"exclude": ["nothing"]}, "no layer with a kernel has a path that matches 'nothing'"),
        (conv_net, {"sparsity": 1.0}, "sparsity must be at least 0 and below 1"),
        (conv_net, {"sparsity": {"conv": -1}}, r"sparsity\['conv'\] must be at least 0"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), {}, "needs a model that has kernels"),
        (lambda: to_subnet(conv_net(), verbose=False), {}, "is not converted twice"),
        (lambda: "model", {}, "model must be a Keras model"),
        (conv_net, {"include": ["nothing"]}, "no layer with a kernel has a path that matches 'nothing'"),
        (conv_net, {"include": ["conv"], "exclude": ["c*"]}, "no layer is left to convert"),
        (conv_net, {"sparsity": lambda path, shape: None}, "no layer is left to convert"),
        (conv_net, {"sparsity": lambda path, shape: 2}, r"sparsity\('conv'\) must be at least 0 and below 1"),
        (conv_net, {"method": "dense"}, "method must be one of supermask"),
        (conv_net, {"kernels": "new"}, "kernels must be one of redraw, keep"),
        (conv_net, {"method": Supermask(mask="2:4")}, "mask=2:4 needs kernels whose inputs 4 divides, and conv has 9"),
        (
            conv_net,
            {"method": Supermask(mask="2:4"), "sparsity": {"head": 0.5, "*": 0.4}},
            "sparsity must be at least 0.5 with mask=2:4. Received: sparsity=0.4",
        ),
        (
            conv_net,
            {"method": Supermask(mask="global"), "sparsity": {"head": 0.5, "*": 0.6}},
            "kernels that are ranked together have one method and one sparsity",
        ),
        (conv_net, {"sparsity": {"head": "much"}}, r"sparsity\['head'\] must be a number"),
        (conv_net, {"sparsity": lambda path, shape: "much"}, r"sparsity\('conv'\) must be a number"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "call the model on an input"),
    ],
)
def test_refuses_in_one_sentence(model, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_subnet(model(), **arguments)


def test_a_sparsity_for_each_path_and_shape():
    asked = {}

    def sparsity(path, shape):
        asked[path] = shape
        return {"conv": 0.5, "hidden": 0.9}.get(path)

    subnet = to_subnet(conv_net(), sparsity, verbose=False)
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("conv", 0.5), ("hidden", 0.9)]
    assert asked == {"conv": (3, 3, 1, 4), "hidden": (144, 4), "head": (4, 2)}


def test_only_what_is_included():
    subnet = to_subnet(conv_net(), {"head": 0.25, "*": 0.5}, include=["h*"], verbose=False)
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("hidden", 0.5), ("head", 0.25)]


def test_the_first_pattern_that_matches_counts():
    subnet = to_subnet(conv_net(), {"h*": 0.5, "head": 0.25, "*": 0.0}, verbose=False)
    assert [layer.sparsity for layer in subnet_layers(subnet)] == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("as_function", [False, True])
def test_patterns_give_numbers_methods_or_nothing(as_function, capsys):
    choices = {"conv": MagnitudePruning(0.9), "head": None, "*": 0.6}

    def choice(path, shape):
        return choices.get(path, choices["*"])

    subnet = to_subnet(conv_net(), choice if as_function else choices, Supermask(binarize=True), seed=1)
    conv, hidden = subnet_layers(subnet)
    assert (conv.name, conv.method) == ("conv", MagnitudePruning(0.9))
    assert (hidden.name, hidden.method) == ("hidden", Supermask(0.6, binarize=True))
    assert type(subnet.get_layer("head")) is layers.Dense
    assert "1 given no sparsity (head)" in capsys.readouterr().out
    rest = to_subnet(conv_net(), {"conv": None, "*": RandomPruning()}, verbose=False)
    assert [layer.method for layer in subnet_layers(rest)] == [RandomPruning(0.5)] * 2


def test_the_sparsity_is_the_methods_where_none_is_given():
    for arguments in ({"method": Supermask(0.7)}, {"sparsity": Supermask(0.7)}, {"sparsity": 0.7}):
        subnet = to_subnet(conv_net(), verbose=False, **arguments)
        assert [layer.method for layer in subnet_layers(subnet)] == [Supermask(0.7)] * 3


@pytest.mark.parametrize("method", ["magnitude_pruning", "random_pruning"])
def test_pruning_keeps_the_kernels(method):
    model = conv_net()
    subnet = to_subnet(model, 0.0, method=method, verbose=False)
    images = IMAGES[:, :8, :8, :1]
    np.testing.assert_allclose(subnet(images), model(images), rtol=1e-6)
    kernel = model.get_layer("hidden").kernel.numpy()
    pruned = bake(to_subnet(model, 0.5, method=method, verbose=False)).get_layer("hidden").kernel.numpy()
    np.testing.assert_array_equal(pruned[pruned != 0], kernel[pruned != 0])
    assert (pruned == 0).sum() == kernel.size // 2
    redrawn = to_subnet(model, 0.0, method=method, kernels="redraw", verbose=False)
    assert (bake(redrawn).get_layer("hidden").kernel.numpy() != kernel).all()


def test_kernels_that_are_kept_are_frozen_with_a_supermask():
    model = conv_net()
    subnet = to_subnet(model, 0.5, kernels="keep", verbose=False)
    for layer in subnet_layers(subnet):
        np.testing.assert_array_equal(layer.subnet_kernels[0].variable, model.get_layer(layer.name).kernel)
        assert not layer.subnet_kernels[0].variable.trainable


def test_prune_is_magnitude_pruning_of_the_kernels_that_are_there(capsys):
    model = conv_net()
    pruned = prune(model, {"conv": 0.5, "*": 0.75}, exclude=["head"])
    assert "2 layers with 612 kernel entries are pruned" in capsys.readouterr().out
    assert [layer.method for layer in subnet_layers(pruned)] == [MagnitudePruning(0.5), MagnitudePruning(0.75)]
    for layer in subnet_layers(pruned):
        (kernel,) = layer.subnet_kernels
        np.testing.assert_array_equal(kernel.variable, model.get_layer(layer.name).kernel)
        magnitudes, mask = np.abs(kernel.variable.numpy()), kernel.mask.numpy()
        assert mask.sum() == round((1 - layer.sparsity) * mask.size)
        assert magnitudes[mask == 1].min() >= magnitudes[mask == 0].max()
    assert [layer.method for layer in subnet_layers(prune(model, verbose=False))] == [MagnitudePruning()] * 3
    assert [layer.name for layer in subnet_layers(prune(model, 0.9, include=["h*"], verbose=False))] == [
        "hidden",
        "head",
    ]


@pytest.mark.parametrize("mask", ["per_kernel", "global"])
def test_a_model_compiled_with_what_is_not_registered_is_converted(mask):
    def loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred))

    model = conv_net()
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=[lambda y_true, y_pred: keras.ops.mean(y_pred)])
    subnet = to_subnet(model, 0.5, Supermask(mask=mask), verbose=False)
    assert not subnet.compiled
    assert model.compiled
    assert model.loss is loss
    images = IMAGES[:, :8, :8, :1]
    model.fit(images, np.ones((8, 2)), verbose=0)
    subnet.compile(keras.optimizers.SGD(0.1), loss)
    subnet.fit(images, np.ones((8, 2)), verbose=0)
    np.testing.assert_allclose(bake(subnet)(images), subnet(images), rtol=1e-5, atol=1e-6)
    assert subnet.compiled


def kernels_of(model):
    return [kernel for layer in subnet_layers(model) for kernel in layer.subnet_kernels]


def one_ranking(kernels, ranked, sparsity):
    """The masks of numpy's ranking over the concatenation; of equal scores the first are kept."""
    flat = np.concatenate([np.ravel(ranked(kernel)) for kernel in kernels])
    kept = flat.size - round(sparsity * flat.size)
    mask = np.zeros(flat.size, np.float32)
    mask[np.argsort(-flat, kind="stable")[:kept]] = 1
    ends = np.cumsum([kernel.num_weights for kernel in kernels])[:-1]
    return [part.reshape(kernel.shape) for part, kernel in zip(np.split(mask, ends), kernels, strict=True)]


RANKED = {
    "supermask": (Supermask(0.7, mask="global"), lambda kernel: kernel.scores.numpy()),
    "abs": (Supermask(0.7, mask="global", score_transform="abs"), lambda kernel: np.abs(kernel.scores.numpy())),
    "magnitude_pruning": (MagnitudePruning(0.7, mask="global"), lambda kernel: np.abs(kernel.variable.numpy())),
    "random_pruning": (RandomPruning(0.7, mask="global"), lambda kernel: kernel.scores.numpy()),
}


@pytest.mark.parametrize("method", RANKED)
@pytest.mark.parametrize("make", [conv_net, nested])
def test_one_ranking_for_a_whole_model(make, method, tmp_path):
    method, ranked = RANKED[method]
    model = make()
    subnet = to_subnet(model, method=method, seed=0, verbose=False)
    kernels = kernels_of(subnet)
    for sparsity in (0.7, 0.3, 0.95):
        set_sparsity(subnet, sparsity)
        total = sparsity_report(subnet).total
        assert total.num_kept == total.num_weights - round(sparsity * total.num_weights)
        for kernel, expected in zip(kernels, one_ranking(kernels, ranked, sparsity), strict=True):
            np.testing.assert_array_equal(kernel.mask, expected)
            assert kernel.num_kept == expected.sum()
        assert len({layer.sparsity for layer in sparsity_report(subnet).layers}) > 1
        assert {layer.sparsity for layer in subnet_layers(subnet)} == {sparsity}
    rng = np.random.default_rng(0)
    inputs = {each.name: rng.normal(size=(4, *each.shape[1:])).astype(np.float32) for each in subnet.inputs}
    inputs = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    outputs, baked = subnet(inputs), bake(subnet)
    assert type(baked) is type(model)
    assert type(subnet) is type(model)
    assert not any(subnet_layers(baked))
    subnet.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert sparsity_report(loaded) == sparsity_report(subnet)
    for other in (baked, loaded):
        keras.tree.map_structure(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), outputs, other(inputs)
        )


def test_each_output_keeps_its_least_where_kernels_are_ranked_together():
    for sparsity in (0.5, 0.7):
        method = Supermask(sparsity, mask="global", min_per_channel=1)
        subnet = to_subnet(conv_net(), method=method, seed=0, verbose=False)
        total = sparsity_report(subnet).total
        assert total.num_kept == total.num_weights - round(sparsity * total.num_weights)
        for kernel in kernels_of(subnet):
            assert kernel.num_kept == kernel.mask.numpy().sum()
            assert (kernel.mask.numpy().reshape(-1, kernel.shape[-1]).sum(axis=0) >= 1).all()


def test_ties_are_kept_in_the_models_order():
    subnet = to_subnet(conv_net(), 0.9, Supermask(mask="global"), verbose=False)
    for kernel in kernels_of(subnet):
        kernel.scores.assign(np.full(kernel.shape, 0.25))
    set_sparsity(subnet, 0.9)
    assert [layer.num_kept for layer in sparsity_report(subnet).layers] == [36, 26, 0]


def test_between_events_every_kernel_keeps_its_number():
    subnet = to_subnet(conv_net(), 0.7, Supermask(mask="global"), seed=0, verbose=False)
    kept = [kernel.num_kept for kernel in kernels_of(subnet)]
    subnet.compile(keras.optimizers.SGD(50.0), "mse")
    before = [kernel.mask.numpy() for kernel in kernels_of(subnet)]
    subnet.fit(IMAGES[:, :8, :8, :1], np.ones((8, 2)), epochs=3, verbose=0)
    assert any((kernel.mask.numpy() != old).any() for kernel, old in zip(kernels_of(subnet), before, strict=True))
    for kernel, number in zip(kernels_of(subnet), kept, strict=True):
        assert kernel.num_kept == kernel.mask.numpy().sum() == number
    set_sparsity(subnet, 0.7)
    for kernel, expected in zip(
        kernels_of(subnet), one_ranking(kernels_of(subnet), lambda kernel: kernel.scores.numpy(), 0.7), strict=True
    ):
        np.testing.assert_array_equal(kernel.mask, expected)


def test_a_frozen_layer_keeps_its_number_and_takes_no_part_in_the_ranking():
    subnet = to_subnet(conv_net(), 0.7, Supermask(mask="global"), seed=0, verbose=False)
    hidden = subnet.get_layer("hidden")
    kept = hidden.subnet_kernels[0].num_kept
    hidden.trainable = False
    set_sparsity(subnet, 0.4)
    assert hidden.subnet_kernels[0].num_kept == kept
    others = [kernel for kernel in kernels_of(subnet) if kernel is not hidden.subnet_kernels[0]]
    for kernel, expected in zip(others, one_ranking(others, lambda kernel: kernel.scores.numpy(), 0.4), strict=True):
        np.testing.assert_array_equal(kernel.mask, expected)
    # A mask of its own has nothing to do with the others, so it follows.
    alone = to_subnet(conv_net(), 0.7, seed=0, verbose=False)
    alone.get_layer("hidden").trainable = False
    set_sparsity(alone, 0.4)
    assert {layer.sparsity for layer in subnet_layers(alone)} == {0.4}


def test_kernels_with_masks_of_their_own_stand_beside_those_that_are_ranked_together():
    choices = {"conv": Supermask(0.25), "*": Supermask(0.7, mask="global")}
    subnet = to_subnet(conv_net(), choices, seed=0, verbose=False)
    conv, *others = kernels_of(subnet)
    assert conv.num_kept == 27
    for kernel, expected in zip(others, one_ranking(others, lambda kernel: kernel.scores.numpy(), 0.7), strict=True):
        np.testing.assert_array_equal(kernel.mask, expected)


class WithItsOwnStep(keras.Model):
    """A functional model with a training step of its own."""

    def train_step(self, data):
        logs = super().train_step(data)
        return logs | {"steps_of_its_own": keras.ops.ones(())}


class WithConstructor(keras.Model):
    """The same with a constructor of its own, which takes what that of a functional model takes."""

    def __init__(self, inputs, outputs, name=None):
        super().__init__(inputs, outputs, name=name)
        self.factor = 3.0

    def train_step(self, data):
        return super().train_step(data) | {"factor": keras.ops.convert_to_tensor(self.factor)}


@pytest.mark.parametrize("mask", ["per_kernel", "global"])
@pytest.mark.parametrize("cls", [WithItsOwnStep, WithConstructor])
def test_a_model_keeps_its_class_and_its_training_step(cls, mask):
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Dense(2, name="head")(layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs)))
    model = cls(inputs, outputs, name="mine")
    subnet = to_subnet(model, 0.6, Supermask(mask=mask), verbose=False)
    assert type(subnet) is cls
    assert subnet.name == "mine"
    subnet.compile("sgd", "mse")
    history = subnet.fit(IMAGES[:, :8, :8, :1], np.ones((8, 2)), verbose=0).history
    assert (history["steps_of_its_own"] == [1.0]) if cls is WithItsOwnStep else (history["factor"] == [3.0])
    assert type(bake(subnet)) is cls


@pytest.mark.parametrize(
    "method",
    [Supermask(), Supermask(0.7, mask="global"), MagnitudePruning(), RandomPruning(0.7, mask="global")],
    ids=str,
)
def test_copies_and_files_of_weights(method, tmp_path):
    subnet = to_subnet(nested(), method=method, seed=0, verbose=False)
    inputs = {"one": np.ones((2, 4), np.float32), "two": np.full((2, 4), -1, np.float32)}
    subnet.save_weights(tmp_path / "subnet.weights.h5")
    for load in (
        lambda copy: copy.set_weights(subnet.get_weights()),
        lambda copy: copy.load_weights(tmp_path / "subnet.weights.h5"),
    ):
        copy = keras.models.clone_model(subnet)
        assert type(copy) is type(subnet)
        load(copy)
        np.testing.assert_array_equal(copy(inputs)["a"], subnet(inputs)["a"])
        assert sparsity_report(copy) == sparsity_report(subnet)


def test_a_subclassed_model_under_one_ranking():
    model = Subclassed(8)
    inputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    model(inputs)
    subnet = to_subnet(model, 0.5, Supermask(mask="global"), verbose=False)
    subnet.compile("sgd", "mse")
    subnet.fit(inputs, np.ones((8, 2)), verbose=0)
    assert sparsity_report(subnet).total.num_kept == (3 * 8 + 8 * 2) // 2
    np.testing.assert_allclose(bake(subnet)(inputs), subnet(inputs), rtol=1e-5)


def test_one_ranking_trains_alike_on_two_devices(strategy_scope):
    images = IMAGES[:, :8, :8, :1]

    def losses(scope):
        with scope():
            keras.utils.set_random_seed(0)
            model = to_subnet(without_normalization(), 0.6, Supermask(mask="global"), seed=0, verbose=False)
            model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        callbacks = [iterand_tf.Rerandomize(2, 0.5), iterand_tf.SparsityScheduler(0.6, frequency=2)]
        fit = model.fit(images, LABELS % 2, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        return fit.history["loss"]

    np.testing.assert_allclose(losses(strategy_scope), losses(contextlib.nullcontext), rtol=1e-4)


def test_the_model_that_is_converted_is_not_changed():
    model = conv_net()
    before = [variable.numpy() for variable in model.variables]
    kinds = [type(variable) for variable in model.variables]
    subnet = to_subnet(model, 0.5, verbose=False)
    baked = bake(subnet)
    images = IMAGES[:, :8, :8, :1]
    expected = subnet(images).numpy()
    for other in (subnet, baked):
        other.compile("sgd", "mse")
        other.fit(images, np.ones((8, 2)), verbose=0)
    assert [type(variable) for variable in model.variables] == kinds
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert (subnet(images).numpy() != expected).any()
    assert {type(layer).__module__.partition(".")[0] for layer in baked.layers} == {"keras"}


SMALL = {
    "MobileNetV2": {"alpha": 0.35, "input_shape": (32, 32, 3)},
    "ResNet50V2": {"input_shape": (32, 32, 3)},
    "EfficientNetB0": {"input_shape": (32, 32, 3)},
}
# They take the memory or the time of a large machine, or their sizes are those of others in the table.
LEFT_OUT = {"EfficientNetV2L", "ConvNeXtXLarge", "ConvNeXtLarge", "NASNetLarge", "EfficientNetB7", "EfficientNetV2M"}
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
APPLICATIONS = sorted(
    name
    for name, value in vars(keras.applications).items()
    if callable(value) and name[0].isupper() and name not in LEFT_OUT
)


def an_application(name, tmp_path, **arguments):
    """A network of keras.applications is converted, trained for a step, saved, loaded and baked."""
    model = getattr(keras.applications, name)(weights=None, classes=4, **arguments)
    subnet = to_subnet(model, 0.5, seed=0, verbose=False)
    report = sparsity_report(subnet)
    kernels = [variable for variable in model.variables if variable.name.endswith("kernel")]
    assert report.total.num_weights == sum(np.prod(kernel.shape) for kernel in kernels)
    subnet.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).uniform(-1, 1, (2, *model.input_shape[1:])).astype(np.float32)
    subnet.fit(images, np.arange(2), verbose=0, callbacks=[iterand_tf.Rerandomize(1, 0.1)])
    subnet.save(tmp_path / "model.keras")
    expected = subnet(images)
    for other in (keras.models.load_model(tmp_path / "model.keras"), bake(subnet)):
        np.testing.assert_allclose(other(images), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_some_networks_of_keras_applications(name, tmp_path):
    an_application(name, tmp_path, **SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_network_of_keras_applications(name, tmp_path):
    size = SIZES.get(name, 32)
    an_application(name, tmp_path, input_shape=(size, size, 3))
