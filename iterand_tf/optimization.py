"""Optimizers and learning rate schedules as the papers use them, on top of Keras's own."""

from typing import Any

import keras
from keras import ops

from iterand_tf import checks

OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("cosine", "multi_step", "constant")
FINETUNE_LEARNING_RATE = 1e-5


@keras.saving.register_keras_serializable(package="iterand_tf")
class CoupledSGD(keras.optimizers.SGD):
    """SGD whose L2 term is part of the gradient and so goes through the momentum, as in the papers' experiments.

    Keras's own `weight_decay` is decoupled: it shrinks the variable past the momentum. Here the update is that of
    `keras.optimizers.SGD` for the gradient `g + l2 * variable`, which is the gradient of the loss plus
    `l2 / 2 * sum(variable ** 2)`.

    Args:
        learning_rate: number or schedule.
        momentum: in [0, 1].
        l2: factor of the coupled L2 term, at least 0, on every trained variable.
        **kwargs: the other arguments of `keras.optimizers.SGD`.

    Raises:
        ValueError: if `l2` is negative, or `weight_decay` is given as well.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 5: the experiments' weight decay is of this kind.

    Example:

    >>> import keras
    >>> from iterand_tf import CoupledSGD
    >>> variable = keras.Variable([1.0])
    >>> CoupledSGD(learning_rate=0.5, l2=0.1).apply([keras.ops.zeros(1)], [variable])
    >>> round(float(variable[0]), 6)
    0.95
    """

    def __init__(self, learning_rate: Any = 0.1, momentum: float = 0.9, l2: float = 0.0, **kwargs: Any):
        if kwargs.get("weight_decay"):
            raise checks.ArgumentError("weight_decay", "left out, since l2 replaces it", kwargs["weight_decay"])
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.l2 = checks.number("l2", l2, minimum=0)

    def update_step(self, gradient, variable, learning_rate):
        if self.l2:
            gradient = ops.cast(gradient, variable.dtype) + ops.cast(self.l2, variable.dtype) * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"l2": self.l2}


def learning_rate_schedule(
    name: str, learning_rate: float, steps_per_epoch: int, epochs: int, warmup_epochs: int, finetune_epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the step.

    Args:
        name: `"cosine"`, to 0 without fine-tune epochs, or otherwise to `FINETUNE_LEARNING_RATE`, at which they
            stay; `"multi_step"`, a tenth after one half and again after three quarters of all epochs; `"constant"`.
        learning_rate: its highest value.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: all epochs, warm-up and fine-tune epochs included.
        warmup_epochs: epochs of linear growth from 0; cosine only.
        finetune_epochs: the last epochs, cosine only.
    """
    checks.one_of("name", name, LR_SCHEDULES)
    if name != "cosine" and (warmup_epochs or finetune_epochs):
        raise checks.ArgumentError("name", "cosine where there are warm-up or fine-tune epochs", name)
    if epochs and warmup_epochs + finetune_epochs >= epochs:
        raise checks.ArgumentError(
            "epochs", f"above {warmup_epochs} + {finetune_epochs}, which warm up and fine-tune", epochs
        )
    schedules = keras.optimizers.schedules
    if name == "multi_step":
        steps = steps_per_epoch * epochs
        return schedules.PiecewiseConstantDecay(
            [steps // 2, steps * 3 // 4], [learning_rate, learning_rate / 10, learning_rate / 100]
        )
    if name == "constant":
        return schedules.PiecewiseConstantDecay([0], [learning_rate, learning_rate])
    return schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_epochs else learning_rate,
        decay_steps=max((epochs - warmup_epochs - finetune_epochs) * steps_per_epoch, 1),
        alpha=FINETUNE_LEARNING_RATE / learning_rate if finetune_epochs else 0.0,
        warmup_target=learning_rate if warmup_epochs else None,
        warmup_steps=warmup_epochs * steps_per_epoch,
    )


def optimizer(name: str, learning_rate: Any, momentum: float, weight_decay: float) -> keras.optimizers.Optimizer:
    """`"sgd"` with coupled L2 `weight_decay`, or `"adamw"` with decoupled `weight_decay` and no use for `momentum`."""
    if checks.one_of("name", name, OPTIMIZERS) == "sgd":
        return CoupledSGD(learning_rate, momentum, l2=weight_decay)
    return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
