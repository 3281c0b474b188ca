"""Answers of an exported directory, in a process of its own that knows nothing of this project.

    python -P served_outputs.py EXPORT_DIR/VERSION IMAGES.npy ENCODED OUTPUTS.npz

ENCODED is a file with one encoded image, for a SavedModel's `serve_jpeg`. Warm-up requests in assets.extra are run too:
a broken one would stop TensorFlow Serving's load.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np


def served_outputs(path: str | os.PathLike, images: np.ndarray, encoded: bytes) -> dict[str, np.ndarray]:
    """Float32 outputs of a batch, and of an encoded image, from the directory of a version; probabilities are left out.

    Returns:
        `images`, and, if it is a SavedModel with the signature `serve_jpeg`, `encoded`.
    """
    lite = pathlib.Path(path, "model.tflite")
    return {"images": _lite_outputs(lite, images)} if lite.exists() else _saved_model_outputs(path, images, encoded)


def _saved_model_outputs(path, images, encoded):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    warmup = pathlib.Path(path, "assets.extra", "tf_serving_warmup_requests")
    if warmup.exists():
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            loaded.signatures[request.model_spec.signature_name](**inputs)
    results = {"images": _main(loaded.signatures["serving_default"](image=tf.constant(images))).numpy()}
    if "serve_jpeg" in loaded.signatures:
        results["encoded"] = _main(loaded.signatures["serve_jpeg"](image_bytes=tf.constant([encoded]))).numpy()
    return results


def _main(outputs):
    """The output that is compared."""
    return next(output for name, output in outputs.items() if name != "probabilities")


def _lite_outputs(file, images):
    try:
        from ai_edge_litert import interpreter as lite
    except ImportError:
        from tensorflow import lite
    signature = lite.Interpreter(model_path=str(file)).get_signature_runner("serving_default")
    details = signature.get_input_details()["image"]
    if details["dtype"] == np.uint8:
        scale, zero_point = details["quantization"]
        images = np.clip(np.round(images / scale) + zero_point, 0, 255).astype(np.uint8)
    outputs = _main(signature(image=images))
    scale, zero_point = _main(signature.get_output_details())["quantization"]
    return ((outputs.astype(np.float32) - zero_point) * scale if scale else outputs).astype(np.float32)


if __name__ == "__main__":
    _path, _images, _encoded, _outputs = sys.argv[1:]
    results: dict[str, Any] = {**served_outputs(_path, np.load(_images), pathlib.Path(_encoded).read_bytes())}
    np.savez(_outputs, **results)
