"""A variable that a SavedModel holds without a value, for one that is computed when the model is loaded.

TensorFlow has no public way to say so: a tf.Variable always writes its value into the checkpoint. What a trackable
object writes is decided by three methods, which are replaced here on the variable and on the copy that
tf.saved_model.save makes of it. A TrackableResource with a handle of its own has the same effect without them, but
loses the value when a signature outlives the loaded object, or else never frees it.
"""

import tensorflow as tf

_METHODS = ("_serialize_to_tensors", "_restore_from_tensors", "_gather_saveables_for_checkpoint")
_EXPORT = "_export_to_saved_model_graph"


def unsaved_variable(shape: tuple[int, ...], name: str, dtype: str = "float32") -> tf.Variable:
    """A variable of zeros whose value is not written into checkpoints."""
    variable = tf.Variable(tf.zeros(shape, dtype), trainable=False, name=name)
    if not all(hasattr(variable, method) for method in (*_METHODS, _EXPORT)):
        raise RuntimeError(f"packed exports do not work with TensorFlow {tf.__version__}; export the format dense")
    _leave_out(variable)
    export = getattr(variable, _EXPORT)

    def export_copy(object_map=None, **kwargs):
        tensors = export(object_map=object_map, **kwargs)
        _leave_out(object_map[variable])
        return tensors

    setattr(variable, _EXPORT, export_copy)
    return variable


def _leave_out(variable):
    for method, replacement in zip(_METHODS, (dict, lambda tensors: None, dict), strict=True):
        setattr(variable, method, replacement)
