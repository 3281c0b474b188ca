"""Exports a trained model: every format that is asked for is written, reloaded elsewhere and compared, or none."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from export.artifact import Artifact, compare_outputs, served_outputs
from export.network import Network, inference_arguments
from export.pack import DTYPES
from export.saved_model import HEADS
from export.versions import check_export_dir, targets_of, written_whole
from iterand_tf import checks, models
from iterand_tf.cloning import is_graph
from iterand_tf.data.augmentation import whole_of_encoded
from iterand_tf.errors import ExportError
from iterand_tf.layers.walk import all_layers

FORMATS = ("packed", "dense", "tflite")
_SAMPLE_SIZE = 8
# The size that a sample has where the model leaves it open.
_UNKNOWN_SIZE = 32


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
    sample: np.ndarray | None = None,
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
    """Writes a classifier as `EXPORT_DIR/VERSION` in one format, reloads it elsewhere and compares it with the model.

    `export_formats` writes several formats at once; it says more about what is written and compared.

    Args:
        model: any built Keras model that takes one float input and gives one output of shape (batch, size).
        export_dir: the directory, created if need be.
        version: whole number of at least 1, or None for one more than the highest there.
        sample: a batch of inputs to compare on; a subclassed model needs it. None for standard normal ones.
        export_format: `"packed"` (a SavedModel whose kernels are entropy-coded and unpacked when it is loaded),
            `"dense"` (one whose kernels are variables, for converters) or `"tflite"` (a TensorFlow Lite file).
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
    sample: np.ndarray | None = None,
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
    `serving_default` takes `image`, a float32 batch of the model's input shape. It gives `outputs`; or, where it is
    known that the model is a classifier that ends in logits, `logits` and `probabilities`. It is known of the models
    of `iterand_tf.models.build`, and where `head` says so. The signature `serve_jpeg` gives the same for
    `image_bytes`, a batch of encoded images, where it is known how to make inputs of images: `decode` says so, and
    the models of `build` take pixels in 0-255. BatchNormalization is folded into the layer before it where it can be.
    Everything is written to temporary directories first and renamed when all checks have passed.

    Args:
        model: any built Keras model with Subnet layers, or without, that takes one float input and gives one output
            of shape (batch, size).
        export_dir: created if need be.
        formats: of `"packed"` (a SavedModel whose kernels are entropy-coded and unpacked when it is loaded),
            `"dense"` (one whose kernels are variables, for converters) and `"tflite"` (`model.tflite`).
        version: whole number of at least 1; None for one more than the highest there.
        sample: a batch of inputs to compare on, needed for a subclassed model; None for standard normal ones.
        head: `"softmax"` or `"sigmoid"` where the outputs are logits that this function turns into probabilities. None
            for other outputs, and for the models of `iterand_tf.models.build`, which have a softmax head.
        kernel_dtype: type of the values of packed kernels with many distinct ones, a key of `export.pack.DTYPES`.
            Other than float32, the logits are compared with those of the rounded kernels.
        seeded: whether packed kernels may be drawn again from their seeds when they are loaded. A kernel is, if all its
            entries are found among the draws of its Subnet layer and that takes the fewest bytes.
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
    if not formats or len(set(formats)) < len(formats) or not set(formats) <= set(FORMATS):
        raise checks.ArgumentError("formats", f"one or several of {', '.join(FORMATS)}", formats)
    if tflite_int8 and (sample is None or "tflite" not in formats):
        raise checks.ArgumentError(
            "tflite_int8", "left out unless tflite is exported and a sample is given to calibrate on", tflite_int8
        )
    checks.one_of("kernel_dtype", kernel_dtype, tuple(DTYPES))
    if head is not None:
        checks.one_of("head", head, tuple(HEADS))
    directory = check_export_dir(export_dir)
    targets = targets_of(directory, formats, version)
    sample = _check_sample(model, sample)
    # The fresh process computes on the CPU, too.
    with tf.device("CPU:0"):
        trained = _outputs_of(model, sample)
        num_outputs = trained.shape[-1]
        labels = _check_labels(labels, num_outputs)
        if head is None and num_outputs > 1 and models.from_pixels_to_logits(model):
            head = "softmax"
        if head == "softmax":
            _check_logits(trained)
        network = Network.of(model)
        packed = network.packed(kernel_dtype, seeded)
        rounded = network
        if kernel_dtype != "float32":
            compare_outputs(network.own_outputs(sample), trained)
            rounded = network.rounded(packed)
        shape = (None, *(model.inputs[0].shape[1:] if is_graph(model) else sample.shape[1:]))
        if decode is None and models.from_pixels_to_logits(model):
            decode = _whole_image(shape)
        if decode is not None:
            _check_decode(decode, shape[1:])
        artifact = Artifact(network, packed, rounded, shape, head, decode, labels, flags, sample, tflite_int8)
        results = {}
        with written_whole(directory, targets) as temporary:
            for name, path in temporary.items():
                kernel_bytes = artifact.write(name, path)
                served = served_outputs(path, sample, artifact.encoded_image)
                artifact.compare(name, served, trained)
                difference = float(np.max(np.abs(served["images"] - trained)))
                weights, entropy = artifact.num_weights, sum(artifact.entropies)
                coded = sum(each.entropy_bits for each in packed)
                results[name] = ExportResult(targets[name], weights, kernel_bytes, entropy, coded, difference)
    return results


def _check_sample(model, sample):
    """The batch to compare on: `sample` if it fits the model's input, or a random one."""
    if not is_graph(model):
        if not model.built or sample is None or not len(sample):
            raise ValueError(
                f"a subclassed model must be called once before, and needs a sample. Received: model={model.name}"
            )
        return np.asarray(sample, np.float32)
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if len(model.inputs) != 1:
        raise ValueError(f"export takes a model with one input and one output. Received: inputs={model.inputs}")
    shape = model.inputs[0].shape[1:]
    if sample is None:
        known = [size or _UNKNOWN_SIZE for size in shape]
        return np.random.default_rng(0).standard_normal((_SAMPLE_SIZE, *known)).astype(np.float32)
    sample = np.asarray(sample, np.float32)
    fits = sample.ndim == len(shape) + 1 and all(
        size in (None, given) for size, given in zip(shape, sample.shape[1:], strict=True)
    )
    if not fits or not len(sample):
        raise ValueError(f"sample must be a batch of inputs of shape {shape}. Received: sample.shape={sample.shape}")
    return sample


def _whole_image(input_shape):
    """Decodes an image to an input of 1 or 3 channels; None if inputs are not such images of known size."""
    height, width, channels = input_shape[1:] if len(input_shape) == 4 else (None, None, None)
    if height is None or width is None or channels not in (1, 3):
        return None
    return lambda encoded: whole_of_encoded(encoded, (height, width), channels)


def _check_decode(decode, input_shape):
    """Raises ValueError if the decoder does not give inputs of the model.

    Its own errors come here, too: inside of tf.map_fn one would leave TensorFlow's scope of variables changed.
    """
    traced = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    image = traced.get_concrete_function().structured_outputs
    if image.dtype != tf.float32 or not image.shape.is_compatible_with(input_shape):
        wanted = f"a function of an encoded image that gives a float32 tensor of shape {input_shape}"
        raise checks.ArgumentError("decode", wanted, image)


def _check_labels(labels, num_outputs):
    """The class names as text, one for each output, or none."""
    if labels is None:
        return []
    if isinstance(labels, str | bytes | dict):
        raise checks.ArgumentError("labels", "a sequence of class names", labels)
    labels = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    if any("\n" in label for label in labels):
        raise checks.ArgumentError("labels", "names of one line each", labels)
    if labels and len(labels) != num_outputs:
        raise checks.ArgumentError("labels", f"{num_outputs} class names, one for each output", labels)
    return labels


def _outputs_of(model, sample):
    """The model's float32 answers, if they are such as can be served."""
    stateful = [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise ValueError(
            "export takes no stateful layers, whose answers depend on the calls before; build them with "
            f"stateful=False. Received: layers={stateful}"
        )
    try:
        outputs = model(sample, **inference_arguments(model))
    except tf.errors.UnimplementedError as error:
        if any(getattr(layer, "data_format", None) == "channels_first" for layer in all_layers(model)):
            raise ExportError(
                f"{model.name} has layers with data_format='channels_first', which TensorFlow runs on a CPU only with "
                "oneDNN; set TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or build the model channels last."
            ) from error
        raise
    if not hasattr(outputs, "shape") or len(outputs.shape) != 2:
        raise ValueError("export takes a model with one input and one output of shape (batch, size).")
    outputs = np.asarray(outputs, np.float32)
    if not np.isfinite(outputs).all():
        raise ExportError("the trained model's outputs are not finite; train it anew, with a lower learning rate.")
    return outputs


def _check_logits(outputs):
    """Raises ValueError if the outputs can hardly be logits of a softmax."""
    if outputs.shape[-1] == 1:
        raise ValueError("head='softmax' needs two outputs or more; a single logit has the head 'sigmoid'.")
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            "with head='softmax' the model must end in logits, of which the export makes probabilities; leave out its "
            f"softmax, or head. Received: outputs={outputs[0]}"
        )
