"""What TensorBoard and the logs get to know of the masks, epoch by epoch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iterand_tf import Rerandomize, SubnetDense
from iterand_tf.training.epoch_figures import EventFiles, MaskChanges

STEPS_PER_EPOCH = 4


def subnet():
    model = keras.Sequential(
        [keras.Input((6,)), SubnetDense(8, sparsity=0.75, name="first"), SubnetDense(2, sparsity=0.5, name="last")]
    )
    model.compile(keras.optimizers.SGD(5.0), "mse")
    return model


def fit(model, *callbacks, epochs=2, batches=STEPS_PER_EPOCH):
    chance = np.random.default_rng(0)
    images, targets = chance.normal(size=(batches, 6)), chance.normal(size=(batches, 2))
    return model.fit(images, targets, batch_size=1, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def scalars(directory):
    events = EventAccumulator(str(directory)).Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_each_layer_has_its_flips_and_its_sparsity(tmp_path):
    history = fit(subnet(), MaskChanges(tmp_path, STEPS_PER_EPOCH))
    found = scalars(tmp_path)
    assert found["sparsity/first"] == [0.75, 0.75]
    assert found["sparsity/last"] == [0.5, 0.5]
    first, last = (np.array(found[f"mask_flip_ratio/{name}"]) for name in ("first", "last"))
    assert first.max() > 0
    # The layers have 48 and 16 entries.
    np.testing.assert_allclose(history["mask_flip_ratio"], (48 * first + 16 * last) / 64, rtol=1e-6)


def test_agrees_with_rerandomize(tmp_path):
    rerandomize = Rerandomize(period=1, rate=0.5)
    both = fit(subnet(), rerandomize, MaskChanges(tmp_path, STEPS_PER_EPOCH))
    keras.utils.set_random_seed(0)
    alone = fit(subnet(), Rerandomize(period=1, rate=0.5))
    assert both["mask_flip_ratio"] == pytest.approx(alone["mask_flip_ratio"])


def test_an_interrupted_epoch_is_left_out(tmp_path):
    model = subnet()
    fit(model, epochs=1, batches=3)
    history = fit(model, MaskChanges(tmp_path, STEPS_PER_EPOCH), epochs=1, batches=1)
    assert "mask_flip_ratio" not in history
    assert "mask_flip_ratio/first" not in scalars(tmp_path)
    assert scalars(tmp_path)["sparsity/first"] == [0.75]


def test_a_network_without_subnets_writes_nothing(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    fit(model, MaskChanges(tmp_path, STEPS_PER_EPOCH))
    assert not list(tmp_path.iterdir())


def test_tensorboard_has_the_figures_of_training_and_of_validation(tmp_path):
    model = subnet()
    data = (np.ones((4, 6)), np.ones((4, 2)))
    history = model.fit(*data, validation_data=data, epochs=2, verbose=0, callbacks=[EventFiles(tmp_path)]).history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert train == {"epoch_loss": pytest.approx(history["loss"]), "epoch_learning_rate": [5, 5]}
    assert validation == {"epoch_loss": pytest.approx(history["val_loss"])}
