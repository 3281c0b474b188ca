"""Devices and workers: distribution strategies, and Keras's `fit` on several machines."""

from iterand_tf.strategies.multi_worker_fit import enable_distributed_fit

__all__ = ["enable_distributed_fit"]
