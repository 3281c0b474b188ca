"""Makes Keras 3's `fit` and `evaluate` work under MultiWorkerMirroredStrategy.

Keras 3.15 reduces a batch of unequal parts to build the model, and reduces scalars along an axis that they do not have
(Keras issue 20585). There is no public way around either, so two functions of Keras's TensorFlow trainer are replaced
here, and only on the version that this was tested with.
"""

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

_TESTED = "3.15."
_reduce_per_replica = trainer.reduce_per_replica


def enable_distributed_fit(model: keras.Model) -> keras.Model:
    """Makes `fit` and `evaluate` of a model work under MultiWorkerMirroredStrategy.

    Args:
        model: compiled or not. It may be fitted on whatever `fit` takes; a `tf.data.Dataset` has global batches, and
            is divided among the workers by its `auto_shard_policy`. Make it in the strategy's scope.

    Returns:
        The model.

    Raises:
        RuntimeError: on a version of Keras that this has not been tested with.

    Example:

    >>> model = enable_distributed_fit(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    """
    if not keras.__version__.startswith(_TESTED):
        raise RuntimeError(
            f"distributed training is tested with Keras {_TESTED}x, not with {keras.__version__}; install that version"
        )
    trainer.reduce_per_replica = _reduce_scalars

    def build_from_specification(iterator=None, data_batch=None):
        if iterator is not None:
            specification = iterator._distributed_dataset.element_spec
            data_batch = tf.nest.map_structure(_one_replica, specification)
        if model._distribute_strategy is not None:
            with model.distribute_strategy.scope():
                model._symbolic_build(data_batch=data_batch)

    model._maybe_symbolic_build = build_from_specification
    return model


def _one_replica(specification):
    """The tensor specification of a replica's part of the batch, with a batch size of 1 in place of an open one."""
    components = getattr(specification, "_value_specs", (specification,))
    shape = [size or 1 for size in components[0].shape]
    return tf.TensorSpec(shape, components[0].dtype)


def _reduce_scalars(values, strategy, reduction):
    """What Keras's function should do: the mean over replicas of scalars, on several workers too."""
    several_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if several_workers and reduction in ("auto", "mean"):
        return tf.nest.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
    return _reduce_per_replica(values, strategy, reduction)
