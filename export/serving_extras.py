"""Files in assets.extra: where the export comes from, and TensorFlow Serving's warm-up requests."""

import importlib.metadata
import importlib.util
import json
import pathlib
import platform
from typing import Any

import numpy as np
import tensorflow as tf

from iterand_tf.version import __version__

DIRECTORY = "assets.extra"
RECORD = "export.json"
WARMUP = "tf_serving_warmup_requests"
_PACKAGES = ("tensorflow", "keras", "numpy")


def write_record(path: pathlib.Path, export_format: str, flags: str, kernels: list[dict[str, Any]]) -> None:
    """Writes assets.extra/export.json: the format, the flags of the run, versions, and one entry for each kernel."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    record = {
        "format": export_format,
        "flags": flags.splitlines(),
        "packages": {"iterand_tf": __version__, "python": platform.python_version()} | versions,
        "kernels": kernels,
    }
    (path / DIRECTORY).mkdir(exist_ok=True)
    (path / DIRECTORY / RECORD).write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


def write_warmup(path: pathlib.Path, sample: dict[str, np.ndarray]) -> None:
    """Writes one warm-up request, of zeros shaped as one of the sample, where tensorflow-serving-api is installed."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        return
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "serving_default"
    for name, values in sample.items():
        # One value stands for all.
        request.inputs[name].CopyFrom(tf.make_tensor_proto(0, values.dtype, shape=(1, *values.shape[1:])))
    with tf.io.TFRecordWriter(str(path / DIRECTORY / WARMUP)) as writer:
        writer.write(log.SerializeToString())
