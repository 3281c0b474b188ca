"""Two virtual devices against one, and the choice of the strategy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import iterand_tf
from iterand_tf.data import load
from iterand_tf.strategies import enable_distributed_fit
from iterand_tf.strategies.strategy import any_worker, distribute, is_chief, make_strategy, mirrored, num_replicas

STEPS, BATCH, PERIOD = 50, 64, 20


class Record(keras.callbacks.Callback):
    """The loss of each step, and whether all replicas hold the same kernels, scores and statistics after it."""

    def __init__(self):
        super().__init__()
        self.losses, self.masks, self.equal = [], [], True

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.masks.append([np.asarray(layer.kernel_mask) for layer in iterand_tf.subnet_layers(self.model)])
        for variable in self.model.variables:
            copies = [copy.numpy().tobytes() for copy in getattr(variable.value, "values", ())]
            self.equal &= len(set(copies)) <= 1


def train(strategy):
    """Fifty steps with two re-randomizations; the model, the record and the kernels' re-drawn entries."""
    keras.utils.set_random_seed(0)
    layers = iterand_tf.models.SubnetFactory(synchronized_batch_normalization=True)
    with strategy.scope() if strategy else tf.distribute.get_strategy().scope():
        model = iterand_tf.models.build("conv2", (8, 8, 1), 10, layers, 0.25, batch_normalization=True)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.002, momentum=0.9), loss)
    enable_distributed_fit(model)
    # Synchronized statistics weigh the parts of a batch equally, so all batches are divided into equal ones.
    examples = load("digits", max_train_examples=20 * BATCH).train
    record, epochs = Record(), -(-STEPS * BATCH // examples.num_examples)
    batches = distribute(
        strategy, lambda shard: examples.training_batches(BATCH, "crop_flip", 0, 0, epochs, shard=shard)
    )
    callbacks = [iterand_tf.Rerandomize(PERIOD, 0.5), record]
    model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0, callbacks=callbacks)
    return model, record


def test_two_devices_train_the_network_of_one():
    (one, alone), (two, together) = train(None), train(mirrored(("CPU:0", "CPU:1")))
    assert together.equal
    assert len(alone.losses) == len(together.losses) == STEPS
    for masks, others in zip(alone.masks, together.masks, strict=True):
        for mask, other in zip(masks, others, strict=True):
            np.testing.assert_array_equal(mask, other)
    for first, second in zip(iterand_tf.subnet_layers(one), iterand_tf.subnet_layers(two), strict=True):
        np.testing.assert_array_equal(np.asarray(first.kernel), np.asarray(second.kernel))
    difference = max(abs(a - b) for a, b in zip(alone.losses, together.losses, strict=True))
    assert difference <= 1e-5, difference


def test_one_device_has_no_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert make_strategy("one_device") is None
    assert make_strategy("auto") is None
    assert is_chief(None)
    assert num_replicas(None) == 1
    assert [any_worker(None, flag) for flag in (False, True)] == [False, True]


def test_virtual_devices_make_replicas():
    for name in ("auto", "mirrored"):
        strategy = make_strategy(name, virtual_devices=2)
        assert num_replicas(strategy) == 2
        assert is_chief(strategy)


def test_an_untested_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with pytest.raises(RuntimeError, match=r"tested with Keras 3.15.x, not with 4.0.0"):
        enable_distributed_fit(keras.Sequential([keras.layers.Dense(1)]))
