"""ONNX files of a dense SavedModel, converted by tf2onnx."""

import importlib.util
import logging
import pathlib

import tensorflow as tf

from iterand_tf.errors import ExportError, first_line

# Of 2022: every runtime of today reads it, and tf2onnx writes no later one.
_OPSET = 18


def check_installed() -> None:
    """Raises ExportError unless what converts and what compares is installed."""
    missing = [name for name in ("tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"the format onnx needs {' and '.join(missing)}; run pip install '.[onnx]' in the checkout.")


def to_onnx(dense: pathlib.Path) -> bytes:
    """The contents of an ONNX file of a dense SavedModel's `serving_default`; inputs and outputs keep their names."""
    import onnx
    import tf2onnx.convert
    import tf2onnx.tf_loader

    # This object holds the variables.
    loaded = tf.saved_model.load(str(dense))
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    inputs = {f"{name}:0": name for name in specs}
    outputs = dict(
        zip((tensor.name for tensor in signature.outputs), sorted(signature.structured_outputs), strict=True)
    )
    if shared := sorted(set(inputs.values()) & set(outputs.values())):
        raise ExportError(f"ONNX needs other names for outputs than for inputs; rename the output {shared[0]}.")
    loggers = {logger: logger.level for logger in (tf.get_logger(), logging.getLogger("tf2onnx"))}
    try:
        # tf2onnx calls what TensorFlow calls deprecated, and logs what the checker says below.
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        graph = tf2onnx.tf_loader.from_function(signature, list(inputs), list(outputs))
        if any(node.attr["T"].type == tf.bfloat16.as_datatype_enum for node in graph.node):
            raise TypeError("its runtime does not compute in bfloat16")
        for node in graph.node:
            if node.name in specs:
                # SavedModels do not keep the shapes of a function's arguments.
                node.attr["shape"].shape.CopyFrom(specs[node.name].shape.as_proto())
        proto, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=list(inputs),
            output_names=list(outputs),
            opset=_OPSET,
            tensors_to_rename=inputs | outputs,
        )
        onnx.checker.check_model(proto)
        return proto.SerializeToString()
    except Exception as error:
        raise ExportError(f"ONNX cannot express this network ({first_line(error)}); export another format.") from error
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
