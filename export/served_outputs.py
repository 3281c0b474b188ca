"""Answers of an exported directory, in a process of its own that knows nothing of this project.

    python -P served_outputs.py EXPORT_DIR/VERSION SAMPLE.npz ENCODED OUTPUTS.npz

SAMPLE.npz has the inputs by name. ENCODED is a file with one encoded image, for a SavedModel's `serve_jpeg`. In
OUTPUTS.npz the names of outputs stand behind `sample/` and `encoded/`. Warm-up requests in assets.extra are run too: a
broken one would stop TensorFlow Serving's load. main.py asks an int8 file for its accuracy by the same function.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np


def served_outputs(
    path: str | os.PathLike, sample: dict[str, np.ndarray], encoded: bytes
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs by name, of a batch under `sample`, and under `encoded` of an image where there is a `serve_jpeg`."""
    for name, outputs_of in (("model.tflite", _lite_outputs), ("model.onnx", _onnx_outputs)):
        if (file := pathlib.Path(path, name)).exists():
            return {"sample": outputs_of(file, sample)}
    return _saved_model_outputs(path, sample, encoded)


def _saved_model_outputs(path, sample, encoded):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def outputs(signature, inputs):
        given = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: output.numpy() for name, output in loaded.signatures[signature](**given).items()}

    warmup = pathlib.Path(path, "assets.extra", "tf_serving_warmup_requests")
    if warmup.exists():
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(warmup)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs(request.model_spec.signature_name, inputs)
    results = {"sample": outputs("serving_default", sample)}
    if "serve_jpeg" in loaded.signatures:
        results["encoded"] = outputs("serve_jpeg", {"image_bytes": [encoded]})
    return results


def _lite_outputs(file, sample):
    try:
        from ai_edge_litert import interpreter as lite
    except ImportError:
        from tensorflow import lite
    signature = lite.Interpreter(model_path=str(file)).get_signature_runner("serving_default")
    details = signature.get_input_details()
    outputs = signature(**{name: _quantized(values, details[name]) for name, values in sample.items()})
    details = signature.get_output_details()
    return {name: _fractions(values, details[name]) for name, values in outputs.items()}


def _onnx_outputs(file, sample):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, sample), strict=True))


def _quantized(values, details):
    scale, zero_point = details["quantization"]
    if details["dtype"] != np.uint8 or not scale:
        return values
    return np.clip(np.round(values / scale) + zero_point, 0, 255).astype(np.uint8)


def _fractions(values, details):
    scale, zero_point = details["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32) if scale else values


if __name__ == "__main__":
    _path, _sample, _encoded, _outputs = sys.argv[1:]
    _results = served_outputs(_path, dict(np.load(_sample)), pathlib.Path(_encoded).read_bytes())
    _flat = {f"{what}/{name}": values for what, by_name in _results.items() for name, values in by_name.items()}
    np.savez(_outputs, **_flat)  # type: ignore[arg-type]
    # All is written. The usual end would first take apart what TensorFlow has set up, which takes a while.
    os._exit(0)
