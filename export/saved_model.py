"""Writes networks as SavedModels that TensorFlow Serving loads, packed or dense."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.network import Network
from export.pack import PackedKernel
from export.unpack import PackedKernels
from export.versions import being_written

INPUT_NAME = "image"
ENCODED_NAME = "image_bytes"
LABELS = "labels.txt"
HEADS = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}
_FORMAT_VERSION = 1


def write_saved_model(
    network: Network,
    path: pathlib.Path,
    input_shape: tuple[int | None, ...],
    head: str | None = None,
    packed: Sequence[PackedKernel] | None = None,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Saves a tf.Module of raw variables with the signatures `serving_default` and, with `decode`, `serve_jpeg`.

    Keras's own export writes each variable twice (Keras issue 23553).

    Args:
        network: what answers.
        path: the directory to write.
        input_shape: of a batch, the batch size None.
        head: `"softmax"` or `"sigmoid"` where the outputs are logits of such a classifier, a key of `HEADS`.
        packed: the network's kernels, to write in place of variables; None for variables.
        decode: function of one encoded image, a scalar string, to an input without its batch axis.
        labels: class names, written as the asset `labels.txt`, one a line.
    """
    module = tf.Module()
    names = [kernel.name for kernel in network.kernels]
    kernels: Sequence[tf.Variable]
    if packed is None:
        module.kernels = [tf.Variable(k.served, name=name) for k, name in zip(network.kernels, names, strict=True)]
        module.other_weights = [tf.Variable(v.numpy(), name=v.path) for v in network.other_weights]
        kernels, other_weights = module.kernels, module.other_weights
    else:
        # Small weights stand in the graph, where they are smaller; the loaders want one variable that is saved.
        other_weights = [tf.constant(variable.numpy()) for variable in network.other_weights]
        scales = [kernel.scale for kernel in network.kernels]
        values = [kernel.values for kernel in network.kernels]
        module.packed_kernels = PackedKernels(packed, values, names, scales, other_weights)
        module.kernels = kernels = module.packed_kernels.variables
        module.format_version = tf.Variable(_FORMAT_VERSION)

    @tf.function(input_signature=[tf.TensorSpec(input_shape, tf.float32, name=INPUT_NAME)], autograph=False)
    def serve(image):
        outputs = network.outputs(image, kernels, other_weights)
        return {"outputs": outputs} if head is None else {"logits": outputs, "probabilities": HEADS[head](outputs)}

    signatures = {"serving_default": serve}
    if decode is not None:

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=ENCODED_NAME)], autograph=False)
        def serve_jpeg(image_bytes):
            return serve(tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(input_shape[1:])))

        signatures["serve_jpeg"] = serve_jpeg
    for signature in signatures.values():
        # Errors of the network and of `decode` come now, apart from those of writing.
        signature.get_concrete_function()
    with being_written(path), tempfile.TemporaryDirectory() as directory:
        if labels:
            file = pathlib.Path(directory, LABELS)
            file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
            module.labels = tf.saved_model.Asset(str(file))
        tf.saved_model.save(module, str(path), signatures=signatures)
        _drop_hints(path)


def _drop_hints(path):
    """Drops what a loader infers anyway, the shapes of results and the names of captured tensors."""
    file = path / "saved_model.pb"
    contents = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in contents.meta_graphs:
        functions = meta_graph.graph_def.library.function
        nodes = [node for body in (meta_graph.graph_def.node, *(f.node_def for f in functions)) for node in body]
        for attributes in (*nodes, *(argument for f in functions for argument in f.arg_attr.values())):
            for name in ("_output_shapes", "_user_specified_name"):
                attributes.attr.pop(name, None)
    file.write_bytes(contents.SerializeToString(deterministic=True))
    # The fingerprint is that of the file as it was.
    (path / "fingerprint.pb").unlink()
