"""Subclassed models in to_subnet: their class, their files, and where their layers may stand."""

import keras
import numpy as np
import pytest

from iterand_tf import MagnitudePruning, bake, subnet_layers, to_subnet

layers = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


class EqualNames(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(8, name="same"), layers.Dense(8, name="same")

    def call(self, inputs):
        return self.last(self.first(inputs))


class HiddenAttributes(keras.Model):
    def __init__(self):
        super().__init__()
        self._layers_of_mine = [layers.Dense(8, name="a"), layers.Dense(8, name="b")]
        self._self_made = {"c": layers.Dense(8, name="c")}

    def call(self, inputs):
        for layer in (*self._layers_of_mine, self._self_made["c"]):
            inputs = layer(inputs)
        return inputs


@keras.saving.register_keras_serializable("subclassed_test")
class NamesOfKeras(keras.Model):
    """Its layers have the names that Keras counts, which differ when it is made again."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.others = layers.Dense(8), [layers.Dense(8), layers.Dense(3)]
        self.steps = 0

    def call(self, inputs):
        inputs = self.first(inputs)
        for layer in self.others:
            inputs = layer(inputs)
        return inputs

    def train_step(self, *args):
        self.steps += 1
        return super().train_step(*args)


class Block(layers.Layer):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)


class SharedLayer(keras.Model):
    def __init__(self):
        super().__init__()
        shared = layers.Dense(8, name="shared")
        self.blocks = [Block(shared), Block(shared)]

    def call(self, inputs):
        return self.blocks[1](self.blocks[0](inputs))


# name: (class, number of Subnet layers)
MODELS = {
    "equal_names": (EqualNames, 2),
    "hidden_attributes": (HiddenAttributes, 3),
    "names_of_keras": (NamesOfKeras, 3),
    "shared_layer": (SharedLayer, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_is_masked_once_and_the_class_stays(name):
    cls, count = MODELS[name]
    model = cls()
    outputs = model(INPUTS)
    same = to_subnet(model, 0.0, kernels="keep", verbose=False)
    assert isinstance(same, cls)
    np.testing.assert_allclose(same(INPUTS), outputs, rtol=1e-5)
    subnet = to_subnet(model, 0.5, seed=0, verbose=False)
    found = subnet_layers(subnet)
    assert len(found) == len({layer.seed for layer in found}) == count
    baked = bake(subnet)
    assert type(baked) is cls
    np.testing.assert_allclose(baked(INPUTS), subnet(INPUTS), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model(INPUTS), outputs)


def test_files_bring_class_train_step_and_subnets_back(tmp_path):
    model = NamesOfKeras()
    model(INPUTS)
    subnet = to_subnet(model, {"dense*": 0.5}, seed=0, verbose=False)
    subnet.compile("sgd", "mse", run_eagerly=True)
    subnet.fit(INPUTS, np.ones((4, 3)), epochs=2, verbose=0)
    assert subnet.steps == 2
    subnet.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, NamesOfKeras)
    np.testing.assert_array_equal(loaded(INPUTS), subnet(INPUTS))
    assert [layer.seed for layer in subnet_layers(loaded)] == [layer.seed for layer in subnet_layers(subnet)]
    copy = keras.models.clone_model(subnet)
    copy(INPUTS)
    assert len(subnet_layers(copy)) == 3


def test_patterns_see_inside():
    model = HiddenAttributes()
    model(INPUTS)
    subnet = to_subnet(model, {"a": None, "b": MagnitudePruning(0.75), "*": 0.5}, verbose=False)
    assert [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)] == [("b", 0.75), ("c", 0.5)]


def test_what_cannot_be_made_again_is_refused():
    class Arguments(keras.Model):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def call(self, inputs):
            return self.layer(inputs)

        def get_config(self):
            return {}

    model = Arguments(layers.Dense(2))
    model(INPUTS)
    with pytest.raises(ValueError, match="cannot be made again from its configuration"):
        to_subnet(model)
    model = NamesOfKeras()
    model(INPUTS)
    with pytest.raises(ValueError, match="kernels='redraw' with a method that trains kernels needs a functional"):
        to_subnet(model, 0.5, "magnitude_pruning", kernels="redraw")
