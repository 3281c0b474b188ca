"""Answers of an exported directory, in a process of its own that knows nothing of this project.

    python -I served_outputs.py EXPORT_DIR/VERSION IMAGES.npy LOGITS.npy

Warm-up requests in assets.extra are run too: a broken one would stop TensorFlow Serving's load.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def served_logits(path: str | os.PathLike, images: np.ndarray) -> np.ndarray:
    """Float32 logits of a batch, from the version directory of a SavedModel or of a TensorFlow Lite file."""
    lite = pathlib.Path(path, "model.tflite")
    return _lite_logits(lite, images) if lite.exists() else _saved_model_logits(path, images)


def _saved_model_logits(path, images):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    warmup = pathlib.Path(path, "assets.extra", "tf_serving_warmup_requests")
    if warmup.exists():
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            loaded.signatures[request.model_spec.signature_name](**inputs)
    return loaded.signatures["serving_default"](image=tf.constant(images))["logits"].numpy()


def _lite_logits(file, images):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter
    signature = Interpreter(model_path=str(file)).get_signature_runner("serving_default")
    if signature.get_input_details()["image"]["dtype"] == np.uint8:
        images = np.clip(np.round(images), 0, 255).astype(np.uint8)
    logits = signature(image=images)["logits"]
    scale, zero_point = signature.get_output_details()["logits"]["quantization"]
    return ((logits.astype(np.float32) - zero_point) * scale if scale else logits).astype(np.float32)


if __name__ == "__main__":
    np.save(sys.argv[3], served_logits(sys.argv[1], np.load(sys.argv[2])))
