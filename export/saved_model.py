"""Writes networks as SavedModels that TensorFlow Serving loads, packed or dense."""

import itertools
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.interface import Interface
from export.network import Network
from export.pack import PackedKernel
from export.unpack import PackedKernels
from export.versions import being_written

ENCODED_NAME = "image_bytes"
LABELS = "labels.txt"
_FORMAT_VERSION = 1


def write_saved_model(
    network: Network,
    path: pathlib.Path,
    interface: Interface,
    packed: Sequence[PackedKernel] | None = None,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Saves a tf.Module of raw variables with the signatures `serving_default` and, with `decode`, `serve_jpeg`.

    Keras's own export writes each variable twice (Keras issue 23553).

    Args:
        packed: the network's kernels, to write in place of variables; None for variables.
        decode: function of one encoded image, a scalar string, to an input without its batch axis.
    """
    module = tf.Module()
    if packed is None:
        module.kernels = [tf.Variable(kernel.served, name=kernel.name) for kernel in network.kernels]
        module.other_weights = [tf.Variable(v.numpy(), name=v.path) for v in network.other_weights]
    else:
        values = [variable.numpy() for variable in network.other_weights]
        module.packed_kernels = PackedKernels(packed, network.kernels, values)
        module.kernels = module.packed_kernels.variables
        module.joined_weights = list(module.packed_kernels.joined_variables.values())
        # The loaders want one variable that is saved.
        module.format_version = tf.Variable(_FORMAT_VERSION)

    @tf.function(input_signature=[interface.inputs], autograph=False)
    def serve(inputs):
        others = module.other_weights if packed is None else module.packed_kernels.other_weights()
        return interface.served(network.outputs(interface.structured(inputs), module.kernels, others))

    signatures = {"serving_default": serve}
    if decode is not None:
        ((name, spec),) = interface.inputs.items()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=ENCODED_NAME)], autograph=False)
        def serve_jpeg(image_bytes):
            return serve({name: tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(spec.shape[1:]))})

        signatures["serve_jpeg"] = serve_jpeg
    for signature in signatures.values():
        # Errors of the network and of `decode` come now, apart from those of writing.
        signature.get_concrete_function()
    with being_written(path), tempfile.TemporaryDirectory() as directory:
        if labels:
            file = pathlib.Path(directory, LABELS)
            file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
            module.labels = tf.saved_model.Asset(str(file))
        # A served model needs no gradients, and those of functions of one's own refer to operations by their names.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(path), signatures=signatures, options=options)
        _drop_hints(path)


def _drop_hints(path):
    """Drops what a loader infers anyway, and what only people read: it takes more bytes than small kernels.

    That is shapes, names of captured tensors, definitions of stock operations, empty lists, and names of the operations
    inside of functions.
    """
    file = path / "saved_model.pb"
    contents = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in contents.meta_graphs:
        meta_graph.meta_info_def.ClearField("stripped_op_list")
        functions = meta_graph.graph_def.library.function
        nodes = [node for body in (meta_graph.graph_def.node, *(f.node_def for f in functions)) for node in body]
        for attributes in (*nodes, *functions, *(argument for f in functions for argument in f.arg_attr.values())):
            for name in ("_output_shapes", "_user_specified_name", "_input_shapes"):
                attributes.attr.pop(name, None)
        for node in nodes:
            for name in ("_collective_manager_ids", "_read_only_resource_inputs"):
                if not node.attr[name].list.ListFields():
                    node.attr.pop(name)
        for function in functions:
            for argument in function.signature.input_arg:
                argument.ClearField("handle_data")
            _number_operations(function)
    file.write_bytes(contents.SerializeToString(deterministic=True))
    # The fingerprint is that of the file as it was.
    (path / "fingerprint.pb").unlink()


def _number_operations(function):
    """Names the operations of a function by numbers, but those that are names of its arguments."""
    arguments = {argument.name for argument in function.signature.input_arg}
    free = (f"{number:x}" for number in itertools.count() if f"{number:x}" not in arguments)
    numbers = {node.name: number for node, number in zip(function.node_def, free, strict=False)}

    def renamed(tensor):
        """Of an operation's output, `NAME:OUTPUT:INDEX`, or of one to wait for, `^NAME`; arguments stay."""
        name, colon, output = tensor.removeprefix("^").partition(":")
        return tensor[: tensor.startswith("^")] + numbers.get(name, name) + colon + output

    for node in function.node_def:
        node.name = numbers[node.name]
        node.input[:] = map(renamed, node.input)
    for results in (function.ret, function.control_ret):
        for name in list(results):
            results[name] = renamed(results[name])
