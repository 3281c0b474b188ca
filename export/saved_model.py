"""SavedModels in TensorFlow Serving's layout: EXPORT_DIR/VERSION/saved_model.pb, packed or dense."""

import dataclasses
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from export.bake import bake
from export.entropy import kernel_entropy_bits
from export.unpack import PackedKernels
from iterand_tf.errors import ExportError
from iterand_tf.files import check_writable

TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit
INPUT_NAME = "image"
FORMATS = ("packed", "dense")
_FORMAT_VERSION = 1
_SAMPLE_SIZE = 8
_UNKNOWN_SIZE = 32  # of a dimension that the model leaves open


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        path: of the version's directory.
        num_weights: kernel entries of the Dense and convolution layers.
        kernel_bytes: size of these kernels in the SavedModel.
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
) -> ExportResult:
    """Bakes a classifier, writes it as `EXPORT_DIR/VERSION`, reloads it and compares it with the model.

    The signature `serving_default` takes `image`, a float32 batch of the model's input shape, and gives `logits` and
    `probabilities`. Everything is written to a temporary directory first and renamed when the check has passed.

    Args:
        model: a built functional or Sequential model with one input, and logits of shape (batch, classes) as output.
        export_dir: created if need be.
        version: whole number of at least 1; None for one more than the highest there.
        sample: a batch of inputs to compare on; None for standard normal ones.
        export_format: `"packed"`: kernels are entropy-coded and unpacked when the SavedModel is loaded; `"dense"`: they
            are variables, which converters to other formats can read.

    Raises:
        ExportError: if the directory cannot be written, the version exists, or the reloaded logits differ by more than
            1e-4 of the largest; nothing is left behind.
        ValueError: if the model is not such a classifier.

    >>> import tempfile, iterand_tf
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, seed=0)])
    >>> result = export_saved_model(model, tempfile.mkdtemp())
    >>> result.path.name, result.max_abs_difference
    ('1', 0.0)
    """
    if export_format not in FORMATS:
        raise ValueError(f"export_format must be one of {', '.join(FORMATS)}. Received: {export_format=}")
    directory = check_export_dir(export_dir)
    baked = bake(model)
    _check_classifier(baked)
    sample = _sample_of(baked, sample)
    trained = np.asarray(model(sample, training=False), np.float32)
    _check_logits(trained)
    target = directory / str(_next_version(directory) if version is None else _check_version(version))
    if target.exists():
        raise ExportError(f"{target} exists already and is not overwritten; give another version or --export_dir.")
    temporary = directory / f".{target.name}.{os.getpid()}.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        kernel_bytes = _write(baked, temporary, export_format)
        difference = _compare(temporary, sample, trained)
        temporary.rename(target)
    except OSError as error:
        raise ExportError(f"{target} could not be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    kernels = [variable.numpy() for variable in baked.variables if variable.name == "kernel"]
    return ExportResult(
        path=target,
        num_weights=sum(kernel.size for kernel in kernels),
        kernel_bytes=kernel_bytes,
        entropy_bits=sum(map(kernel_entropy_bits, kernels)),
        max_abs_difference=difference,
    )


def _check_classifier(model):
    single = isinstance(model, keras.Sequential) or all(map(keras.utils.is_keras_tensor, (model.input, model.output)))
    if not single or len(model.output_shape) != 2:
        raise ValueError(
            "export takes a model with one input and one output of logits, shape (batch, classes). "
            f"Received: inputs={model.inputs}, outputs={model.outputs}"
        )


def _sample_of(model, sample):
    """The batch to compare on: `sample` if it fits the model's input, or a random one."""
    shape = model.input_shape[1:]
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


def _check_logits(outputs):
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            "export takes a model that ends in logits, and adds the probabilities itself; leave out the softmax. "
            f"Received: outputs that are not negative and add up to 1, {outputs[0]}"
        )


def _check_version(version):
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version must be a whole number of at least 1. Received: version={version!r}")
    return version


def _next_version(directory):
    versions = (int(entry.name) for entry in directory.glob("*") if entry.name.isdecimal())
    return max(versions, default=0) + 1


def _write(baked, path, export_format):
    """Saves a tf.Module of the raw variables, and returns the size of the kernels.

    Keras's own export writes each variable twice (Keras issue 23553).
    """
    module = tf.Module()
    groups = [baked.trainable_variables, baked.non_trainable_variables]
    kernels = [variable for group in groups for variable in group if _is_kernel(variable)]
    if export_format == "packed":
        module.kernels = PackedKernels({variable.path: variable.numpy() for variable in kernels})
        module.unpacked = module.kernels.variables
        unpacked = {id(variable): value for variable, value in zip(kernels, module.unpacked, strict=True)}
        # The rest stands in the graph, where it is smaller; the loaders want one variable that is saved.
        module.format_version = tf.Variable(_FORMAT_VERSION)
        values = [[unpacked[id(v)] if _is_kernel(v) else tf.constant(v.numpy()) for v in g] for g in groups]
        kernel_bytes = sum(packed.num_bytes for packed in module.kernels.packed)
    else:
        values = [[variable.value for variable in group] for group in groups]
        module.parameters = values
        kernel_bytes = sum(variable.numpy().nbytes for variable in kernels)

    @tf.function(input_signature=[tf.TensorSpec(baked.inputs[0].shape, tf.float32, name=INPUT_NAME)], autograph=False)
    def serve(image):
        tensors = [[tf.convert_to_tensor(value) for value in group] for group in values]
        logits, _ = baked.stateless_call(*tensors, image, training=False)
        logits = tf.cast(logits, tf.float32)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return kernel_bytes


def _is_kernel(variable):
    return variable.name == "kernel" and variable.dtype == "float32"


def _compare(path, sample, trained):
    """Largest absolute difference of logits; raises ExportError when it is too large."""
    loaded = tf.saved_model.load(str(path))
    served = loaded.signatures["serving_default"](**{INPUT_NAME: tf.constant(sample)})["logits"].numpy()
    difference = float(np.max(np.abs(served - trained)))
    if not difference <= TOLERANCE * float(np.max(np.abs(trained))):
        raise ExportError(f"the reloaded logits differ from the trained model's by up to {difference:g}; not exported.")
    return difference
