"""Optimizers and schedules against values computed by hand."""

import keras
import numpy as np
import pytest

from iterand_tf import optimization
from iterand_tf.optimization import CoupledSGD, learning_rate_schedule


def test_coupled_l2_goes_through_the_momentum():
    variable = keras.Variable([2.0, -1.0])
    sgd = CoupledSGD(0.1, momentum=0.9, l2=0.5)
    value, velocity = np.array([2.0, -1.0]), np.zeros(2)
    for gradient in ([1.0, 0.0], [0.5, -1.0], [0.0, 0.0]):
        sgd.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        velocity = 0.9 * velocity - 0.1 * (np.array(gradient) + 0.5 * value)
        value = value + velocity
    np.testing.assert_allclose(variable, value, rtol=1e-6)


def test_without_l2_it_is_keras_sgd():
    ours, theirs = keras.Variable([2.0, -1.0]), keras.Variable([2.0, -1.0])
    for optimizer, variable in ((CoupledSGD(0.1, 0.9), ours), (keras.optimizers.SGD(0.1, 0.9), theirs)):
        for gradient in ([1.0, 0.0], [0.5, -1.0]):
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_array_equal(ours, theirs)


def test_round_trips():
    sgd = CoupledSGD(0.2, momentum=0.8, l2=0.3, nesterov=True)
    assert CoupledSGD.from_config(sgd.get_config()).get_config() == sgd.get_config()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"l2": -1.0}, "l2 must be at least 0"), ({"weight_decay": 0.1}, "weight_decay must be left out")],
)
def test_refuses(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        CoupledSGD(0.1, **wrong)


@pytest.mark.parametrize(
    ("name", "warmup", "finetune", "expected"),
    [
        ("cosine", 0, 0, {0: 0.4, 50: 0.2, 100: 0.0}),
        ("cosine", 2, 0, {0: 0.0, 10: 0.2, 20: 0.4, 60: 0.2, 100: 0.0}),
        ("cosine", 2, 2, {20: 0.4, 80: 1e-5, 90: 1e-5, 99: 1e-5}),
        ("multi_step", 0, 0, {0: 0.4, 50: 0.4, 51: 0.04, 75: 0.04, 76: 0.004, 100: 0.004}),
        ("constant", 0, 0, {0: 0.4, 100: 0.4}),
    ],
)
def test_schedules(name, warmup, finetune, expected):
    schedule = learning_rate_schedule(name, 0.4, 10, 10, warmup, finetune)
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7), step


@pytest.mark.parametrize("arguments", [("step", 10, 0, 0), ("multi_step", 10, 1, 0), ("cosine", 3, 2, 1)])
def test_schedules_refuse(arguments):
    name, epochs, warmup, finetune = arguments
    with pytest.raises(ValueError, match="Received"):
        learning_rate_schedule(name, 0.1, 10, epochs, warmup, finetune)


def test_optimizers_by_name():
    assert isinstance(optimization.optimizer("sgd", 0.1, 0.9, 1e-4), CoupledSGD)
    assert optimization.optimizer("adamw", 0.1, 0.9, 0.01).weight_decay == 0.01
    with pytest.raises(ValueError, match="one of sgd, adamw"):
        optimization.optimizer("lion", 0.1, 0.9, 0.0)
