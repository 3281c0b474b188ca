"""What happens between training steps, as a configuration names it: re-draws, and sparsities that rise."""

import functools
import os
from typing import Any

import keras
import tensorflow as tf

from iterand_tf.callbacks import Rerandomize, SparsityScheduler
from iterand_tf.errors import UserError
from iterand_tf.masks import GLOBAL
from iterand_tf.training.config import Config


def check_steps(config: Config, steps_per_epoch: int) -> None:
    """Refuses executions that would run on into the next epoch, and pruning that would end before it begins."""
    steps = config.training.steps_per_execution
    if steps_per_epoch % steps:
        divisors = [count for count in range(1, steps_per_epoch + 1) if steps_per_epoch % count == 0]
        raise UserError(
            f"--steps_per_execution={steps} must divide the {steps_per_epoch} steps of an epoch: one of "
            f"{', '.join(map(str, divisors))}."
        )
    method, num_steps = config.method, steps_per_epoch * config.training.epochs
    begin, end = method.sparsity_begin_step, sparsity_end_step(config, num_steps)
    if method.sparsity_schedule == "constant" or not num_steps:
        return
    if begin >= end:
        raise UserError(
            f"--sparsity_begin_step={begin} and --sparsity_frequency={method.sparsity_frequency} leave no step to "
            f"prune at in the first three quarters of {num_steps} steps; lower one of them."
        )
    if end > num_steps or (end - begin) % method.sparsity_frequency:
        raise UserError(
            f"--sparsity_end_step={end} must be at most {num_steps}, the steps of the run, and a multiple of "
            f"--sparsity_frequency={method.sparsity_frequency} after --sparsity_begin_step={begin}."
        )


def rerandomize_callback(config: Config, num_steps: int) -> Rerandomize | None:
    """What re-draws entries between the `num_steps` steps of the whole run; None without the method iterand."""
    method = config.method
    if method.method != "iterand":
        return None
    last_step = method.rerandomization_last_step or None
    rate: Any = method.rerandomization_rate
    decays = {"linear": functools.partial(keras.optimizers.schedules.PolynomialDecay, end_learning_rate=0.0)}
    decays["cosine"] = keras.optimizers.schedules.CosineDecay
    if method.rerandomization_schedule in decays:
        rate = decays[method.rerandomization_schedule](rate, decay_steps=max(last_step or num_steps, 1))
    return Rerandomize(method.rerandomization_period, rate, mode=method.rerandomization_mode, last_step=last_step)


def sparsity_end_step(config: Config, num_steps: int) -> int:
    """The step from which on the network has its final sparsity.

    It is one at which the schedule prunes, a multiple of --sparsity_frequency after the first.
    """
    method = config.method
    if method.sparsity_schedule == "constant":
        return 0
    begin, frequency = method.sparsity_begin_step, method.sparsity_frequency
    return method.sparsity_end_step or begin + (num_steps * 3 // 4 - begin) // frequency * frequency


def sparsity_callback(config: Config, num_steps: int) -> SparsityScheduler | None:
    """What raises the sparsity between training steps, or ranks kernels together; None where there is neither."""
    method, sparsity = config.method, config.supermask.sparsity
    if method.method == "dense" or not num_steps:
        return None
    if method.sparsity_schedule == "constant":
        is_global = config.supermask.mask == GLOBAL
        return SparsityScheduler(sparsity, method.sparsity_frequency) if is_global else None
    decay = _polynomial_decay()
    return SparsityScheduler(
        decay(
            initial_sparsity=method.initial_sparsity,
            final_sparsity=sparsity,
            begin_step=method.sparsity_begin_step,
            end_step=sparsity_end_step(config, num_steps),
            frequency=method.sparsity_frequency,
        )
    )


def _polynomial_decay():
    """The schedule of tensorflow-model-optimization."""
    # Its import sets the variable TF_USE_LEGACY_KERAS. What tf.keras is stays as it was at its first use, and keras_cv
    # follows that; processes that are started later read the variable.
    tf.keras.version()
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow_model_optimization as tfmot

    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return tfmot.sparsity.keras.PolynomialDecay
