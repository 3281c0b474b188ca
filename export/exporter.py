"""Exports a trained model: every format that is asked for is written, reloaded elsewhere and compared, or none."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from export import onnx
from export.artifact import Artifact, compare_outputs, served_outputs
from export.interface import HEADS, LOGITS, Interface
from export.model_checks import check_built, check_labels, check_logits, decoder, outputs_of
from export.network import Network
from export.pack import DTYPES
from export.versions import check_export_dir, targets_of, written_whole
from iterand_tf import checks, models

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
    formats: str | Sequence[str] = "packed",
    *,
    version: int | None = None,
    sample: Any = None,
    head: str | None = None,
    kernel_dtype: str = "float32",
    seeded: bool = True,
    tflite_int8: bool = False,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
    flags: str = "",
) -> Any:
    """Writes a model in one or several formats, reloads each in a fresh process and compares it with the model.

    One format is written to `EXPORT_DIR/VERSION`, several to `EXPORT_DIR/FORMAT/VERSION`, where TensorFlow Serving
    finds them. Everything is written to temporary directories first and renamed when all checks have passed.

    A SavedModel's signature `serving_default` takes the model's inputs by their names and gives its outputs by theirs,
    see `export.interface`; an input without a name is `image`, a single output `outputs`. For a classifier that ends in
    logits it gives `logits` and `probabilities`. The signature `serve_jpeg` gives the same for `image_bytes`, a batch
    of encoded images. BatchNormalization is folded into the layer before it where it can be.

    Args:
        model: any built Keras model with Subnet layers, or without, of one or several inputs and outputs.
        export_dir: the directory, created if need be.
        formats: one or several of `"packed"` (a SavedModel whose kernels are entropy-coded, and unpacked when it is
            loaded), `"dense"` (a SavedModel whose kernels are variables, for converters), `"tflite"` (`model.tflite`)
            and `"onnx"` (`model.onnx`; needs tf2onnx and onnxruntime, the group onnx).
        version: whole number of at least 1; None for one more than the highest there.
        sample: a batch of inputs to compare on, an array or a dictionary of arrays by the inputs' names; a subclassed
            model needs it. None for random ones: standard normal, or of zeros and ones where inputs are whole numbers.
        head: `"softmax"` or `"sigmoid"` where the outputs are logits that this function turns into probabilities. None
            for other outputs. Networks of `iterand_tf.models.build` set it themselves.
        kernel_dtype: `"float32"`, `"bfloat16"` or `"float16"`: the type of the values of packed kernels with more than
            256 distinct ones. Other than float32, the outputs are compared with those of the rounded kernels.
        seeded: whether to store, of a kernel that is frozen at random, which draw each entry comes from in place of its
            value, where that is smaller; the kernel is then drawn again when the export is loaded.
        tflite_int8: whether to quantize the TensorFlow Lite file to integers throughout, calibrated on `sample`. Its
            outputs may differ by a quarter of the largest.
        decode: the evaluation preprocessing, a function of one encoded image, a scalar string, to one input: the
            SavedModel then has the signature `serve_jpeg`. None for none; networks of `build` resize the whole image.
        labels: class names, one for each output, written to assets/labels.txt of a SavedModel.
        flags: of the run, recorded in assets.extra/export.json.

    Returns:
        An `ExportResult`: where the version is, its size, and how much the reloaded outputs differ. For several formats
        a dictionary of them by format.

    Raises:
        ExportError: if the directory cannot be written, the version exists, a conversion fails, or the reloaded
            outputs differ by more than 1e-4 of the largest; nothing is left behind.
        ValueError: if the model is not such a model or another argument is wrong.

    Example:

    >>> import tempfile, iterand_tf, keras
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> result = iterand_tf.export_saved_model(model, tempfile.mkdtemp())
    >>> result.path.name, result.max_abs_difference
    ('1', 0.0)
    >>> results = iterand_tf.export_saved_model(model, tempfile.mkdtemp(), ["packed", "dense"])
    >>> [result.path.parent.name for result in results.values()]
    ['packed', 'dense']
    """
    names = [formats] if isinstance(formats, str) else list(formats)
    check_formats(names)
    if tflite_int8 and (sample is None or "tflite" not in names):
        raise ValueError(
            'tflite_int8=True needs formats="tflite" and a sample for calibration. '
            f"Received: formats={formats!r}, sample={'None' if sample is None else 'given'}"
        )
    checks.one_of("kernel_dtype", kernel_dtype, tuple(DTYPES))
    if head is not None:
        checks.one_of("head", head, tuple(HEADS))
    elif models.from_pixels_to_logits(model) and model.output_shape[-1] > 1:
        head = "softmax"
    directory = check_export_dir(export_dir)
    targets = targets_of(directory, names, version)
    check_built(model, sample)
    interface = Interface.of(model, sample, head)
    inputs = interface.sample(sample)
    # The fresh process computes on the CPU, too.
    with tf.device("CPU:0"):
        trained = outputs_of(model, interface, inputs)
        labels = check_labels(labels, trained)
        if head == "softmax":
            check_logits(trained[LOGITS])
        network = Network.of(model)
        packed = network.packed(kernel_dtype, seeded)
        rounded = network if kernel_dtype == "float32" else network.rounded(packed)
        decode = decoder(model, interface.inputs, decode)
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
    return results[formats] if isinstance(formats, str) else results


def check_formats(formats: Sequence[str]) -> None:
    """Raises ExportError where a package that a format needs is missing, ValueError where the formats are wrong."""
    if not formats or len(set(formats)) < len(formats) or not set(formats) <= set(FORMATS):
        raise checks.ArgumentError("formats", f"one or several of {', '.join(FORMATS)}", formats)
    if "onnx" in formats:
        onnx.check_installed()
