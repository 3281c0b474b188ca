"""Other runtimes read what is exported: OpenVINO the dense SavedModel, LiteRT and ONNX Runtime their own files."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

import export
import iterand_tf
from export.network import Network
from iterand_tf.errors import ExportError

IMAGES = np.random.default_rng(0).uniform(0, 255, (32, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """With BatchNormalization statistics of its own, so that folding matters."""
    model = iterand_tf.models.build(
        "conv2", (8, 8, 3), 5, iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6)), 0.5, batch_normalization=True
    )
    model(IMAGES, training=True)
    return model


def test_openvino_reads_the_dense_export(model, tmp_path):
    openvino = pytest.importorskip("openvino")
    path = export.export_saved_model(model, tmp_path, formats="dense").path
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(str(path)), "CPU", config)
    logits = compiled(IMAGES)["logits"]
    np.testing.assert_allclose(logits, model(IMAGES), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(axis=1), np.argmax(model(IMAGES), axis=1))


def test_onnx_runtime_runs_the_onnx_file(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    result = export.export_saved_model(model, tmp_path, formats="onnx")
    assert result.max_abs_difference < 1e-4
    session = onnxruntime.InferenceSession(str(result.path / "model.onnx"))
    (given,) = session.get_inputs()
    assert (given.name, given.shape[1:]) == ("image", [8, 8, 3])
    for images in (IMAGES, IMAGES[:1]):
        logits, probabilities = session.run(["logits", "probabilities"], {"image": images})
        np.testing.assert_allclose(logits, model(images), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_onnx_without_its_converter_is_refused_before_anything_is_done(model, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tf2onnx" else find_spec(name))
    with pytest.raises(ExportError, match=r"the format onnx needs tf2onnx; run pip install"):
        export.export_saved_model(model, tmp_path / "new", ["packed", "onnx"])
    assert not list(tmp_path.iterdir())


def test_onnx_needs_names_that_differ(tmp_path):
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((4,), name="x")
    model = keras.Model({"x": inputs}, {"x": iterand_tf.SubnetDense(2, seed=0)(inputs)})
    with pytest.raises(ExportError, match="ONNX needs other names for outputs than for inputs; rename the output x"):
        export.export_saved_model(model, tmp_path, ["dense", "onnx"])
    assert not list(tmp_path.iterdir())


@keras.saving.register_keras_serializable("tests")
class Betainc(keras.layers.Layer):
    def call(self, inputs):
        return tf.raw_ops.Betainc(a=inputs, b=inputs, x=inputs)


def test_what_onnx_cannot_express_is_refused_and_leaves_nothing(tmp_path):
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Betainc()(inputs))
    with pytest.raises(ExportError, match=r"ONNX cannot express this network \(No Op registered for Betainc"):
        export.export_saved_model(model, tmp_path, ["dense", "onnx"], sample=np.full((2, 4), 0.5, np.float32))
    assert not list(tmp_path.iterdir())


def interpreter(path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    return litert.Interpreter(model_path=str(path / "model.tflite"))


def test_litert_runs_the_float_file(model, tmp_path):
    path = export.export_saved_model(model, tmp_path, formats="tflite").path
    answers = interpreter(path).get_signature_runner("serving_default")(image=IMAGES)
    np.testing.assert_allclose(answers["logits"], model(IMAGES), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(answers["probabilities"].argmax(axis=1), np.argmax(model(IMAGES), axis=1))


@pytest.mark.fresh_process
def test_litert_runs_the_integer_file_whose_ternary_kernels_lost_nothing(model, tmp_path):
    result = export.export_saved_model(model, tmp_path, sample=IMAGES, formats="tflite", tflite_int8=True)
    lite = interpreter(result.path)
    signature = lite.get_signature_runner("serving_default")
    assert signature.get_input_details()["image"]["dtype"] == np.uint8
    assert signature.get_output_details()["logits"]["dtype"] == np.int8
    expected = np.asarray(model(IMAGES))
    assert 0 < result.max_abs_difference < 0.1 * np.abs(expected).max()
    quantized = {}
    for tensor in lite.get_tensor_details():
        if tensor["dtype"] == np.int8 and tensor["quantization_parameters"]["scales"].size and len(tensor["shape"]) > 1:
            try:
                values = lite.get_tensor(tensor["index"])
            except ValueError:
                # This is an activation, which has no values yet.
                continue
            quantized[tuple(values.shape)] = (values, tensor["quantization_parameters"]["scales"])
    for kernel in Network.of(model).kernels:
        values, scales = quantized[last_axis_first(kernel.values).shape]
        assert set(np.unique(values)) == {-127, 0, 127}
        dequantized = values * scales.reshape(-1, *[1] * (values.ndim - 1))
        np.testing.assert_allclose(dequantized, last_axis_first(kernel.served), rtol=1e-6)


def last_axis_first(kernel):
    return np.moveaxis(kernel, -1, 0)


def test_integers_need_a_sample(model, tmp_path):
    with pytest.raises(
        ValueError, match=r'tflite_int8=True needs formats="tflite" and a sample for calibration. Received: formats='
    ):
        export.export_saved_model(model, tmp_path, formats="tflite", tflite_int8=True)


def test_what_tensorflow_lite_cannot_express_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    model = iterand_tf.models.build("conv2", (8, 8, 3), 5)

    class Converter:
        def convert(self):
            raise RuntimeError("no such operation\nat length")

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda *_, **__: Converter())
    with pytest.raises(ExportError, match=r"TensorFlow Lite cannot express this network \(no such operation\)"):
        export.export_saved_model(model, tmp_path, ["packed", "tflite"])
    assert not list(tmp_path.iterdir())
