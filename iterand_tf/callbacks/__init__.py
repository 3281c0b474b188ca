"""Keras callbacks that change Subnet layers between training steps."""

from iterand_tf.callbacks.epoch_masks import EpochMasks
from iterand_tf.callbacks.optimizer_steps import OptimizerSteps, attach_state, current_step
from iterand_tf.callbacks.rerandomize import Rerandomize, rerandomize_model
from iterand_tf.callbacks.sparsity_scheduler import SparsityScheduler

__all__ = [
    "EpochMasks",
    "OptimizerSteps",
    "Rerandomize",
    "SparsityScheduler",
    "attach_state",
    "current_step",
    "rerandomize_model",
]
