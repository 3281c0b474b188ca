"""Exports a trained model: every format that is asked for is written, reloaded elsewhere and compared, or none."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export import onnx
from export.artifact import Artifact, compare_outputs, served_outputs
from export.interface import HEADS, LOGITS, Interface
from export.network import Network, as_served, inference_arguments
from export.pack import DTYPES
from export.versions import check_export_dir, targets_of, written_whole
from iterand_tf import checks, models
from iterand_tf.cloning import is_graph
from iterand_tf.data.augmentation import whole_of_encoded
from iterand_tf.errors import ExportError
from iterand_tf.layers.walk import all_layers

FORMATS = ("packed", "dense", "tflite", "onnx")


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        path: of the version's directory.
        num_weights: kernel entries of the Dense, convolution and Subnet layers.
        kernel_bytes: size of these kernels in the directory.
        entropy_bits: information in the values of these kernels, see `export.entropy`.
        coded_entropy_bits: information in what their codings store: below that of the values where a kernel is drawn
            again.
        max_abs_difference: of the outputs, reloaded against trained.
    """

    path: pathlib.Path
    num_weights: int
    kernel_bytes: int
    entropy_bits: float
    coded_entropy_bits: float
    max_abs_difference: float

    @property
    def num_bytes(self) -> int:
        """Size of all files of the version."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def metrics(self) -> dict[str, float]:
        """The fields of result.json about an export."""
        return {
            "export_bytes": self.num_bytes,
            "bits_per_weight": 8 * self.kernel_bytes / max(self.num_weights, 1),
            "entropy_bits_per_weight": self.entropy_bits / max(self.num_weights, 1),
            "coded_entropy_bits_per_weight": self.coded_entropy_bits / max(self.num_weights, 1),
            "max_abs_difference": self.max_abs_difference,
        }


def export_saved_model(
    model: keras.Model,
    export_dir: str | os.PathLike,
    version: int | None = None,
    sample: Any = None,
    export_format: str = "packed",
    *,
    head: str | None = None,
    kernel_dtype: str = "float32",
    seeded: bool = True,
    tflite_int8: bool = False,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
    flags: str = "",
) -> ExportResult:
    """Writes a model as `EXPORT_DIR/VERSION` in one format, reloads it elsewhere and compares it with the model.

    `export_formats` writes several formats at once; it says more about what is written and compared.

    Args:
        model: any built Keras model, of one or several inputs and outputs.
        export_dir: the directory, created if need be.
        version: whole number of at least 1, or None for one more than the highest there.
        sample: a batch of inputs to compare on, an array or a dictionary of arrays by the inputs' names; a subclassed
            model needs it. None for random ones.
        export_format: `"packed"` (a SavedModel whose kernels are entropy-coded and unpacked when it is loaded),
            `"dense"` (one whose kernels are variables, for converters), `"tflite"` (a TensorFlow Lite file) or `"onnx"`
            (an ONNX file; needs the group onnx).
        head: `"softmax"` or `"sigmoid"` where the model ends in logits: the export then serves the probabilities too.
            None for other outputs, and for the networks of `iterand_tf.models.build`, of which it is known.
        kernel_dtype: `"float32"`, `"bfloat16"` or `"float16"`: the type in which packed kernels of many distinct values
            are stored.
        seeded: whether to store, of a kernel that is frozen at random, which draw each entry comes from in place of its
            value, where that is smaller; the kernel is then drawn again when the export is loaded.
        tflite_int8: whether to quantize the TensorFlow Lite file to integers throughout, calibrated on `sample`.
        decode: function of one encoded image, a scalar string, to one input of the model: the export then has the
            signature `serve_jpeg`. None for no such signature, and for the networks of `build`, of which it is known.
        labels: class names, one for each output, written to assets/labels.txt of a SavedModel.
        flags: of the run, recorded in assets.extra/export.json.

    Returns:
        Where the version is, its size, and how much the reloaded outputs differ.

    Raises:
        ExportError: as `export_formats`.
        ValueError: as `export_formats`.

    Example:

    >>> import tempfile, iterand_tf, keras
    >>> from export import export_formats, export_saved_model
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> result = export_saved_model(model, tempfile.mkdtemp())
    >>> result.path.name, result.max_abs_difference
    ('1', 0.0)
    """
    checks.one_of("export_format", export_format, FORMATS)
    results = export_formats(
        model,
        export_dir,
        [export_format],
        version,
        sample,
        head=head,
        kernel_dtype=kernel_dtype,
        seeded=seeded,
        tflite_int8=tflite_int8,
        decode=decode,
        labels=labels,
        flags=flags,
    )
    return results[export_format]


def export_formats(
    model: keras.Model,
    export_dir: str | os.PathLike,
    formats: Sequence[str],
    version: int | None = None,
    sample: Any = None,
    *,
    head: str | None = None,
    kernel_dtype: str = "float32",
    seeded: bool = True,
    tflite_int8: bool = False,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
    flags: str = "",
) -> dict[str, ExportResult]:
    """Writes a model in one or several formats, reloads each in a fresh process and compares it with the model.

    One format is written to `EXPORT_DIR/VERSION`, several to `EXPORT_DIR/FORMAT/VERSION`. A SavedModel's signature
    `serving_default` takes the model's inputs by their names and gives its outputs by theirs, see `export.interface`;
    an input without a name is `image`, a single output `outputs`. Where it is known that the model is a classifier that
    ends in logits, it gives `logits` and `probabilities`. It is known of the models of `iterand_tf.models.build`, and
    where `head` says so. The signature `serve_jpeg` gives the same for `image_bytes`, a batch of encoded images, where
    it is known how to make inputs of images: `decode` says so, and the models of `build` take pixels in 0-255.
    BatchNormalization is folded into the layer before it where it can be. Everything is written to temporary
    directories first and renamed when all checks have passed.

    Args:
        model: any built Keras model with Subnet layers, or without, of one or several inputs and outputs.
        export_dir: created if need be.
        formats: of `"packed"` (a SavedModel whose kernels are entropy-coded and unpacked when it is loaded),
            `"dense"` (one whose kernels are variables, for converters), `"tflite"` (`model.tflite`) and `"onnx"`
            (`model.onnx`; needs tf2onnx and onnxruntime, the group onnx).
        version: whole number of at least 1; None for one more than the highest there.
        sample: a batch of inputs to compare on, an array or a dictionary of arrays by the inputs' names; needed for a
            subclassed model. None for random ones: standard normal, or of zeros and ones where inputs are whole
            numbers.
        head: `"softmax"` or `"sigmoid"` where the outputs are logits that this function turns into probabilities. None
            for other outputs, and for the models of `iterand_tf.models.build`, which have a softmax head.
        kernel_dtype: type of the values of packed kernels with many distinct ones, a key of `export.pack.DTYPES`.
            Other than float32, the logits are compared with those of the rounded kernels.
        seeded: whether packed kernels may be drawn again from their seeds when they are loaded. A kernel is, if all its
            entries are found among the draws of its Subnet layer, that takes the fewest bytes, and all such kernels
            together save more than the 8 kB of operations that draw them again.
        tflite_int8: quantize the TensorFlow Lite file to integers throughout, calibrated on `sample`, which must be
            given. Its outputs may differ by a quarter of the largest.
        decode: the evaluation preprocessing: function of one encoded image, a scalar string, to one input. None
            resizes the whole image, for the models of `iterand_tf.models.build`; other models get no `serve_jpeg`.
        labels: class names, one for each output, written to assets/labels.txt of a SavedModel.
        flags: of the run, recorded in assets.extra/export.json.

    Returns:
        By format: where the version is, its size, and how much the reloaded outputs differ.

    Raises:
        ExportError: if the directory cannot be written, the version exists, a conversion fails, or the reloaded
            outputs differ by more than 1e-4 of the largest; nothing is left behind.
        ValueError: if the model is not such a model or another argument is wrong.

    Example:

    >>> import tempfile, iterand_tf, keras
    >>> from export import export_formats, export_saved_model
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> results = export_formats(model, tempfile.mkdtemp(), ["packed", "dense"])
    >>> [result.path.parent.name for result in results.values()]
    ['packed', 'dense']
    """
    check_formats(formats)
    if tflite_int8 and (sample is None or "tflite" not in formats):
        raise checks.ArgumentError(
            "tflite_int8", "left out unless tflite is exported and a sample is given to calibrate on", tflite_int8
        )
    checks.one_of("kernel_dtype", kernel_dtype, tuple(DTYPES))
    if head is not None:
        checks.one_of("head", head, tuple(HEADS))
    elif models.from_pixels_to_logits(model) and model.output_shape[-1] > 1:
        head = "softmax"
    directory = check_export_dir(export_dir)
    targets = targets_of(directory, formats, version)
    _check_built(model, sample)
    interface = Interface.of(model, sample, head)
    inputs = interface.sample(sample)
    # The fresh process computes on the CPU, too.
    with tf.device("CPU:0"):
        trained = _outputs_of(model, interface, inputs)
        labels = _check_labels(labels, trained)
        if head == "softmax":
            _check_logits(trained[LOGITS])
        network = Network.of(model)
        packed = network.packed(kernel_dtype, seeded)
        rounded = network if kernel_dtype == "float32" else network.rounded(packed)
        if decode is None and models.from_pixels_to_logits(model):
            decode = _whole_image(*interface.inputs.values())
        if decode is not None:
            _check_decode(decode, interface.inputs)
        artifact = Artifact(network, packed, rounded, interface, decode, labels, flags, inputs, trained, tflite_int8)
        if rounded is not network:
            compare_outputs(artifact.own_outputs(network, inputs), trained)
        results = {}
        with written_whole(directory, targets) as temporary:
            for name, path in temporary.items():
                kernel_bytes = artifact.write(name, path)
                difference = artifact.compare(name, served_outputs(path, inputs, artifact.encoded_image))
                weights, entropy = artifact.num_weights, sum(artifact.entropies)
                coded = sum(each.entropy_bits for each in packed)
                results[name] = ExportResult(targets[name], weights, kernel_bytes, entropy, coded, difference)
    return results


def check_formats(formats: Sequence[str]) -> None:
    """Raises an error unless a model can be written in these formats here.

    Args:
        formats: as of `export_formats`.

    Raises:
        ExportError: if a package that one of them needs is not installed.
        ValueError: if there is none, or one is unknown or there twice.
    """
    if not formats or len(set(formats)) < len(formats) or not set(formats) <= set(FORMATS):
        raise checks.ArgumentError("formats", f"one or several of {', '.join(FORMATS)}", formats)
    if "onnx" in formats:
        onnx.check_installed()


def _check_built(model, sample):
    """Raises ValueError unless it is known what the model takes."""
    if is_graph(model) and not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if not is_graph(model) and (not model.built or sample is None or not len(sample)):
        raise ValueError(
            f"a subclassed model must be called once before, and needs a sample. Received: model={model.name}"
        )


def _whole_image(spec):
    """Decodes an image to an input of 1 or 3 channels; None if inputs are not such images of known size."""
    height, width, channels = spec.shape[1:] if len(spec.shape) == 4 else (None, None, None)
    if height is None or width is None or channels not in (1, 3):
        return None
    return lambda encoded: whole_of_encoded(encoded, (height, width), channels)


def _check_decode(decode, inputs):
    """Raises ValueError if the decoder does not give inputs of the model.

    Its own errors come here, too: inside of tf.map_fn one would leave TensorFlow's scope of variables changed.
    """
    if len(inputs) > 1:
        raise checks.ArgumentError("decode", "left out for a model of several inputs", decode)
    traced = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    image = traced.get_concrete_function().structured_outputs
    (spec,) = inputs.values()
    if image.dtype != spec.dtype or not image.shape.is_compatible_with(spec.shape[1:]):
        shape = tuple(spec.shape[1:])
        wanted = f"a function of an encoded image that gives a {spec.dtype.name} tensor of shape {shape}"
        raise checks.ArgumentError("decode", wanted, image)


def _check_labels(labels, outputs):
    """The class names as text, one for each value of the single output, or none."""
    if labels is None:
        return []
    if isinstance(labels, str | bytes | dict):
        raise checks.ArgumentError("labels", "a sequence of class names", labels)
    labels = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    if any("\n" in label for label in labels):
        raise checks.ArgumentError("labels", "names of one line each", labels)
    if labels and len(outputs) > 1:
        raise checks.ArgumentError("labels", "left out for a model of several outputs", labels)
    num_outputs = next(iter(outputs.values())).shape[-1]
    if labels and len(labels) != num_outputs:
        raise checks.ArgumentError("labels", f"{num_outputs} class names, one for each output", labels)
    return labels


def _outputs_of(model, interface, inputs):
    """The model's answers by name, if they are such as can be served."""
    stateful = [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise ValueError(
            "export takes no stateful layers, whose answers depend on the calls before; build them with "
            f"stateful=False. Received: layers={stateful}"
        )
    try:
        outputs = model(interface.structured(inputs), **inference_arguments(model))
    except tf.errors.UnimplementedError as error:
        if any(getattr(layer, "data_format", None) == "channels_first" for layer in all_layers(model)):
            raise ExportError(
                f"{model.name} has layers with data_format='channels_first', which TensorFlow runs on a CPU only with "
                "oneDNN; set TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or build the model channels last."
            ) from error
        raise
    named = {name: np.asarray(as_served(output)) for name, output in interface.named(outputs).items()}
    if not all(np.isfinite(output).all() for output in named.values()):
        raise ExportError("the trained model's outputs are not finite; train it anew, with a lower learning rate.")
    return named


def _check_logits(outputs):
    """Raises ValueError if the outputs can hardly be logits of a softmax."""
    if outputs.shape[-1] == 1:
        raise ValueError("head='softmax' needs two outputs or more; a single logit has the head 'sigmoid'.")
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(
            "with head='softmax' the model must end in logits, of which the export makes probabilities; leave out its "
            f"softmax, or head. Received: outputs={outputs[0]}"
        )
