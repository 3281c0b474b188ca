"""The steps that a model's optimizer has done, as callbacks of `model.fit` see them on every backend."""

import keras
from keras import ops


class OptimizerSteps:
    """Counts the optimizer's steps through an epoch of `model.fit`, which begins now.

    With gradient accumulation, several batches are one step.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        attach_state(model)
        self._batches = int(ops.convert_to_numpy(_batch_counter(model.optimizer)))
        self.at_begin = current_step(model)

    def after(self, batch: int) -> int:
        """The steps done when a batch of the epoch, numbered as callbacks get it, ends."""
        if keras.backend.backend() != "jax":
            return current_step(self._model)
        # To read the optimizer there would take all variables out of the compiled loop, in each step.
        return (self._batches + batch + 1) // (self._model.optimizer.gradient_accumulation_steps or 1)


def current_step(model: keras.Model) -> int:
    """Steps that the model's optimizer has done, under a distribution strategy too."""
    attach_state(model)
    return int(ops.convert_to_numpy(model.optimizer.iterations))


def attach_state(model: keras.Model) -> None:
    """Lets a callback read and assign the model's variables between steps, which JAX's loop keeps to itself."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def _batch_counter(optimizer):
    """The variable that counts batches; `optimizer.iterations` divides it by those of a step."""
    return next(variable for variable in optimizer.variables if variable.name == "iteration")
