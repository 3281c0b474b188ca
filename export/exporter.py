"""Exports a trained model: every format that is asked for is written, reloaded elsewhere and compared, or none."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export import served_outputs, serving_extras, tflite
from export.bake import can_bake
from export.entropy import kernel_entropy_bits
from export.network import Network, inference_arguments
from export.pack import PackedKernel, encode
from export.saved_model import write_saved_model
from iterand_tf.data.augmentation import whole_of_encoded
from iterand_tf.errors import ExportError
from iterand_tf.files import check_writable

TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit
INT8_TOLERANCE = 0.25  # the same after quantization: to find what is broken, not to vouch for accuracy
FORMATS = ("packed", "dense", "tflite")
_SAMPLE_SIZE = 8
_UNKNOWN_SIZE = 32  # of a dimension that the model leaves open


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        path: of the version's directory.
        num_weights: kernel entries of the Dense, convolution and Subnet layers.
        kernel_bytes: size of these kernels in the directory.
        entropy_bits: information in these kernels, see `export.entropy`.
        max_abs_difference: of the logits, reloaded against trained.
    """

    path: pathlib.Path
    num_weights: int
    kernel_bytes: int
    entropy_bits: float
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
            "max_abs_difference": self.max_abs_difference,
        }


def check_export_dir(export_dir: str | os.PathLike) -> pathlib.Path:
    """Returns the directory's path, or raises ExportError unless versions can be written into it."""
    path = pathlib.Path(export_dir).expanduser()
    if not str(export_dir):
        raise ExportError("--export_dir is empty; give the directory to write EXPORT_DIR/VERSION into.")
    try:
        check_writable(path)
    except OSError as error:
        raise ExportError(f"--export_dir={path} cannot be written ({error.strerror}); give another.") from error
    return path


def export_saved_model(
    model: keras.Model,
    export_dir: str | os.PathLike,
    version: int | None = None,
    sample: np.ndarray | None = None,
    export_format: str = "packed",
    **options: Any,
) -> ExportResult:
    """Writes a classifier as `EXPORT_DIR/VERSION` in one format; see `export_formats`, which has the same arguments.

    >>> import tempfile, iterand_tf
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> result = export_saved_model(model, tempfile.mkdtemp())
    >>> result.path.name, result.max_abs_difference
    ('1', 0.0)
    """
    return export_formats(model, export_dir, [export_format], version, sample, **options)[export_format]


def export_formats(
    model: keras.Model,
    export_dir: str | os.PathLike,
    formats: Sequence[str],
    version: int | None = None,
    sample: np.ndarray | None = None,
    *,
    kernel_dtype: str = "float32",
    tflite_int8: bool = False,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    labels: Sequence[str] = (),
    flags: str = "",
) -> dict[str, ExportResult]:
    """Writes a classifier in one or several formats, reloads each in a fresh process and compares it with the model.

    One format is written to `EXPORT_DIR/VERSION`, several to `EXPORT_DIR/FORMAT/VERSION`. A SavedModel's signature
    `serving_default` takes `image`, a float32 batch of the model's input shape, and gives `logits` and
    `probabilities`; `serve_jpeg` gives the same for `image_bytes`, a batch of encoded images, if the model takes
    images. BatchNormalization is folded into the layer before it where it can be. Everything is written to temporary
    directories first and renamed when all checks have passed.

    Args:
        model: any built Keras model with Subnet layers, or without, that takes one input and gives logits of shape
            (batch, classes).
        export_dir: created if need be.
        formats: of `"packed"` (a SavedModel whose kernels are entropy-coded and unpacked when it is loaded),
            `"dense"` (one whose kernels are variables, for converters) and `"tflite"` (`model.tflite`).
        version: whole number of at least 1; None for one more than the highest there.
        sample: a batch of inputs to compare on, needed for a subclassed model; None for standard normal ones.
        kernel_dtype: type of the values of packed kernels with many distinct ones, a key of `export.pack.DTYPES`.
            Other than float32, the logits are compared with those of the rounded kernels.
        tflite_int8: quantize the TensorFlow Lite file to integers throughout, calibrated on `sample`, which must be
            given. Its logits may differ by a quarter of the largest.
        decode: the evaluation preprocessing: function of one encoded image, a scalar string, to one input. None
            resizes the whole image, pixels in 0-255, if the input has 1 or 3 channels.
        labels: class names, written to assets/labels.txt of a SavedModel.
        flags: of the run, recorded in assets.extra/export.json.

    Raises:
        ExportError: if the directory cannot be written, the version exists, a conversion fails, or the reloaded
            logits differ by more than 1e-4 of the largest; nothing is left behind.
        ValueError: if the model is not such a classifier or another argument is wrong.

    >>> import tempfile, iterand_tf
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> results = export_formats(model, tempfile.mkdtemp(), ["packed", "dense"])
    >>> [result.path.parent.name for result in results.values()]
    ['packed', 'dense']
    """
    if not formats or len(set(formats)) < len(formats) or not set(formats) <= set(FORMATS):
        raise ValueError(f"export_format must be one or several of {', '.join(FORMATS)}. Received: {formats=}")
    if tflite_int8 and (sample is None or "tflite" not in formats):
        raise ValueError("tflite_int8 goes with the format tflite, and needs a sample to calibrate on")
    directory = check_export_dir(export_dir)
    targets = _targets(directory, formats, version)
    sample = _check_sample(model, sample)
    with tf.device("CPU:0"):  # where the fresh process computes, too
        trained = _logits_of(model, sample)
        network = Network.of(model)
        rounded = network.rounded(kernel_dtype)
        if rounded is not network:
            _compare(network.own_logits(sample), trained)
        shape = (None, *(model.inputs[0].shape[1:] if can_bake(model) else sample.shape[1:]))
        artifact = _Artifact(network, rounded, kernel_dtype, shape, decode, labels, flags, sample, tflite_int8)
        results = {}
        with _written_whole(directory, targets) as temporary:
            for name, path in temporary.items():
                kernel_bytes = artifact.write(name, path)
                served = _served_logits(path, sample, artifact.encoded_image)
                artifact.compare(name, served, trained)
                difference = float(np.max(np.abs(served["images"] - trained)))
                weights, entropy = artifact.num_weights, sum(artifact.entropies)
                results[name] = ExportResult(targets[name], weights, kernel_bytes, entropy, difference)
    return results


@dataclasses.dataclass(frozen=True)
class _Artifact:
    """What is written, whatever the format."""

    network: Network
    rounded: Network  # the same for the packed format
    kernel_dtype: str
    input_shape: tuple[int | None, ...]
    given_decode: Callable[[tf.Tensor], tf.Tensor] | None
    labels: Sequence[str]
    flags: str
    sample: np.ndarray
    tflite_int8: bool

    @property
    def decode(self) -> Callable[[tf.Tensor], tf.Tensor] | None:
        return self.given_decode or _whole_image(self.input_shape)

    @functools.cached_property
    def packed(self) -> list[PackedKernel]:
        return [encode(kernel.values, self.kernel_dtype) for kernel in self.rounded.kernels]

    @functools.cached_property
    def encoded_image(self) -> bytes:
        """A PNG of noise, to try `serve_jpeg` with."""
        channels = self.input_shape[-1] if self.input_shape[-1] in (1, 3) else 3
        noise = np.random.default_rng(0).integers(0, 256, (40, 30, channels), np.uint8)
        return tf.io.encode_png(noise).numpy()

    @property
    def num_weights(self) -> int:
        return sum(kernel.values.size for kernel in self.network.kernels)

    @functools.cached_property
    def entropies(self) -> list[float]:
        """Bits of information in each kernel."""
        return [
            kernel_entropy_bits(kernel.values, packed.values.itemsize)
            for kernel, packed in zip(self.rounded.kernels, self.packed, strict=True)
        ]

    def write(self, name: str, path: pathlib.Path) -> int:
        """Writes one format to a directory that does not exist yet; returns the size of the kernels in it."""
        if name == "tflite":
            with tempfile.TemporaryDirectory() as dense:
                write_saved_model(self.network, pathlib.Path(dense), self.input_shape)
                tflite.write_tflite(pathlib.Path(dense), path, self.sample if self.tflite_int8 else None)
        else:
            network, packed = (self.rounded, self.packed) if name == "packed" else (self.network, None)
            write_saved_model(network, path, self.input_shape, packed, self.decode, self.labels)
        value_bytes = 1 if name == "tflite" and self.tflite_int8 else 4
        records = [
            {
                "name": kernel.name,
                "shape": kernel.values.shape,
                "num_zeros": int(np.sum(kernel.values == 0)),
                "coding": packed.coding,
                "packed_bytes": packed.num_bytes,
                "stored_bytes": packed.num_bytes if name == "packed" else value_bytes * kernel.values.size,
                "entropy_bits": entropy,
            }
            for kernel, packed, entropy in zip(self.network.kernels, self.packed, self.entropies, strict=True)
        ]
        serving_extras.write_record(path, name, self.flags, records)
        if name != "tflite":
            serving_extras.write_warmup(path, (1, *self.sample.shape[1:]))
        return sum(record["stored_bytes"] for record in records)

    def compare(self, name: str, served: dict[str, np.ndarray], trained: np.ndarray) -> None:
        """Raises ExportError when what is served differs from the trained model, or from the rounded one."""
        if name == "tflite" and self.tflite_int8:
            _compare(served["images"], trained, INT8_TOLERANCE)
            return
        network = self.rounded if name == "packed" else self.network
        _compare(served["images"], trained if network is self.network else network.own_logits(self.sample))
        if "encoded" in served and self.decode is not None:
            _compare(served["encoded"], network.own_logits(self.decode(self.encoded_image)[tf.newaxis]))


def _check_version(version):
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version must be a whole number of at least 1. Received: version={version!r}")
    return version


def _targets(directory, formats, version):
    """The directory of each format's version, which does not exist yet."""
    parents = {name: directory / name if len(formats) > 1 else directory for name in formats}
    version = max(map(_next_version, parents.values())) if version is None else _check_version(version)
    for parent in parents.values():
        if (parent / str(version)).exists():
            raise ExportError(
                f"{parent / str(version)} exists already and is not overwritten; give another version or --export_dir."
            )
    return {name: parent / str(version) for name, parent in parents.items()}


def _next_version(directory):
    versions = (int(entry.name) for entry in directory.glob("*") if entry.name.isdecimal())
    return max(versions, default=0) + 1


def _check_sample(model, sample):
    """The batch to compare on: `sample` if it fits the model's input, or a random one."""
    if not can_bake(model):
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


def _logits_of(model, sample):
    """The model's float32 answers, if it is a classifier that ends in logits."""
    outputs = model(sample, **inference_arguments(model))
    if not hasattr(outputs, "shape") or len(outputs.shape) != 2:
        raise ValueError("export takes a model with one input and one output of logits, shape (batch, classes).")
    outputs = np.asarray(outputs, np.float32)
    if not np.isfinite(outputs).all():
        raise ExportError("the trained model's logits are not finite; train it anew, with a lower learning rate.")
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            "export takes a model that ends in logits, and adds the probabilities itself; leave out the softmax. "
            f"Received: outputs={outputs[0]}"
        )
    return outputs


def _whole_image(input_shape):
    """Decodes an image to an input of 1 or 3 channels; None if inputs are not such images of known size."""
    height, width, channels = input_shape[1:] if len(input_shape) == 4 else (None, None, None)
    if height is None or width is None or channels not in (1, 3):
        return None
    return lambda encoded: whole_of_encoded(encoded, (height, width), channels)


@contextlib.contextmanager
def _written_whole(directory: pathlib.Path, targets: dict[str, pathlib.Path]) -> Iterator[dict[str, pathlib.Path]]:
    """Temporary directories to write, renamed to their targets at the end; removed after an error."""
    temporary = directory / f".{next(iter(targets.values())).name}.{os.getpid()}.tmp"
    missing = [
        path for path in (*{target.parent for target in targets.values()}, *directory.parents) if not path.exists()
    ]
    renamed = []
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        paths = {name: temporary / name for name in targets}
        yield paths
        for name, target in targets.items():
            target.parent.mkdir(exist_ok=True)
            paths[name].rename(target)
            renamed.append(target)
    except BaseException as error:
        for path in (*renamed, temporary):
            shutil.rmtree(path, ignore_errors=True)
        for path in sorted(missing, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        if isinstance(error, OSError | tf.errors.OpError):
            raise ExportError(f"{directory} could not be written: {error}.") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _served_logits(path, sample, encoded):
    """What a fresh process gets from the written directory."""
    with tempfile.TemporaryDirectory() as directory:
        images, image, logits = (pathlib.Path(directory, name) for name in ("images.npy", "image.png", "logits.npz"))
        np.save(images, sample)
        image.write_bytes(encoded)
        result = subprocess.run(
            [sys.executable, "-P", served_outputs.__file__, *map(str, (path, images, image, logits))],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},  # this process may hold all of their memory
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
            raise ExportError(f"what was written does not load in a fresh process ({reason}); not exported.")
        with np.load(logits) as archive:
            return dict(archive)


def _compare(served, expected, tolerance=TOLERANCE):
    """Raises ExportError when logits differ by too much."""
    difference = float(np.max(np.abs(served - expected)))
    if not difference <= tolerance * float(np.max(np.abs(expected))):
        raise ExportError(f"the reloaded logits differ from the trained model's by up to {difference:g}; not exported.")
