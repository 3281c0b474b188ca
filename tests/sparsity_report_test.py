"""The report: every built Subnet layer once, in the model's order, wherever it hangs."""

import keras

import iterand_tf


class Block(keras.layers.Layer):
    """A user's layer with Subnet layers in a list and a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = [iterand_tf.SubnetDense(4, name="in_list"), iterand_tf.SubnetDense(4, name="after")]
        self.second = {"key": iterand_tf.SubnetDense(4, name="in_dictionary")}

    def call(self, inputs):
        for layer in (*self.first, self.second["key"]):
            inputs = layer(inputs)
        return inputs


def test_layers_come_in_the_models_order():
    inner = keras.Sequential([iterand_tf.SubnetDense(4, name="b"), iterand_tf.SubnetDense(4, name="c")], name="inner")
    shared = iterand_tf.SubnetDense(4, name="a")
    inputs = keras.Input((3, 4))
    x = shared(inner(shared(inputs)))
    x = keras.layers.TimeDistributed(iterand_tf.SubnetDense(4, name="d"))(Block()(x))
    model = keras.Model(inputs, iterand_tf.SubnetDense(2, name="e")(x))
    report = iterand_tf.sparsity_report(model)
    assert [layer.name for layer in report.layers] == ["a", "b", "c", "in_list", "after", "in_dictionary", "d", "e"]
    assert report.total.num_weights == 7 * 16 + 8
    assert report.total.num_kept == report.total.num_weights // 2


class WithSideNetwork(keras.Model):
    """A functional model that holds a layer more, as for a loss of its own."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, iterand_tf.SubnetDense(2, name="main")(inputs))
        self.side = iterand_tf.SubnetDense(3, name="side")
        self.side.build((None, 4))


def test_layers_beside_the_graph_of_a_model_are_found():
    report = iterand_tf.sparsity_report(WithSideNetwork())
    assert [layer.name for layer in report.layers] == ["main", "side"]
