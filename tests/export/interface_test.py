"""Exports of models of all kinds: inputs and outputs by the model's own names, in TensorFlow's C API too."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from saved_model_loaders import LOADERS

import export
import iterand_tf
from export.artifact import compare_outputs
from export.interface import Interface
from iterand_tf.errors import ExportError

layers = keras.layers
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(0, 50, (4, 7)).astype(np.int32)
LEFT, RIGHT = (DRAW.standard_normal((4, size)).astype(np.float32) for size in (6, 3))


def mobilenet():
    """With the softmax that it comes with."""
    model = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(32, 32, 3), alpha=0.35)
    return iterand_tf.to_subnet(model, seed=0, verbose=False)


def two_inputs_and_outputs():
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate()([iterand_tf.SubnetDense(8, seed=1)(left), iterand_tf.SubnetDense(8, seed=2)(right)])
    outputs = {"kind": layers.Softmax()(iterand_tf.SubnetDense(3, seed=3)(x)), "size": layers.Dense(1)(x)}
    return keras.Model({"left": left, "right": right}, outputs)


def in_lists():
    left, unnamed = keras.Input((6,), name="left"), keras.Input((3,))
    x = layers.Concatenate()([iterand_tf.SubnetDense(8, seed=1)(left), unnamed])
    return keras.Model([left, unnamed], [iterand_tf.SubnetDense(3, seed=3, name="kind")(x), layers.Dense(1)(x)])


def segmentation():
    photo = keras.Input((None, None, 3), name="photo")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(photo)
    model = keras.Model(photo, layers.Conv2DTranspose(2, 2, strides=2, activation="softmax")(x))
    return iterand_tf.to_subnet(model, seed=0, verbose=False)


def text():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8, mask_zero=True)(tokens))
    model = keras.Model(tokens, layers.Dense(4)(x))
    return iterand_tf.to_subnet(model, seed=0, kernel_names=("*kernel", "embeddings"), verbose=False)


def lstm():
    model = keras.Sequential([keras.Input((5, 3), name="steps"), layers.LSTM(7), layers.Dense(2)])
    return iterand_tf.to_subnet(model, seed=0, verbose=False)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed = iterand_tf.Subnet(layers.Embedding(50, 4), kernel_names=("embeddings",), seed=1)
        self.head = iterand_tf.SubnetDense(3, seed=2)

    def call(self, inputs):
        pooled = keras.ops.mean(self.embed(inputs["tokens"]), axis=1)
        return {
            "scores": self.head(pooled + inputs["left"][:, :4]),
            "pooled": pooled,
            "longest": inputs["tokens"][:, 0],
        }


def subclassed():
    model = Subclassed()
    model({"tokens": TOKENS, "left": LEFT})
    return model


# A row has the model, a sample, its inputs, its outputs, and how many kernel entries it has.
MODELS = {
    "mobilenet": (mobilenet, None, {"image"}, {"outputs"}, 387_168),
    "two inputs and outputs": (
        two_inputs_and_outputs,
        {"right": RIGHT, "left": LEFT},
        {"left", "right"},
        {"kind", "size"},
        136,
    ),
    "in lists": (in_lists, [LEFT, RIGHT], {"left", "input_1"}, {"kind", "output_1"}, 92),
    "segmentation": (segmentation, None, {"photo"}, {"outputs"}, 280),
    "text": (text, TOKENS, {"tokens"}, {"outputs"}, 432),
    "lstm": (lstm, None, {"steps"}, {"outputs"}, 294),
    "subclassed": (
        subclassed,
        {"tokens": TOKENS, "left": LEFT},
        {"tokens", "left"},
        {"scores", "pooled", "longest"},
        212,
    ),
}


@pytest.mark.parametrize("name", [pytest.param("mobilenet", marks=pytest.mark.slow), *list(MODELS)[1:]])
def test_serves_the_models_own_inputs_and_outputs_in_the_c_api_too(name, tmp_path):
    build, sample, inputs, outputs, num_weights = MODELS[name]
    model = build()
    result = export.export_saved_model(model, tmp_path / "served", sample=sample)
    assert result.max_abs_difference < 1e-5
    assert result.num_weights == num_weights
    interface = Interface.of(model, sample)
    given = interface.sample(sample)
    expected = {key: np.asarray(value) for key, value in interface.named(model(interface.structured(given))).items()}
    assert (set(given), set(expected)) == (inputs, outputs)
    answers = LOADERS["C API"](result.path, given, tmp_path)
    assert set(answers) == outputs
    for key, value in expected.items():
        assert answers[key].dtype == value.dtype
        np.testing.assert_allclose(answers[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_open_sizes_stay_open_and_types_are_kept(tmp_path):
    for build, other in ((segmentation, np.ones((1, 5, 9, 3), np.float32)), (text, np.ones((2, 3), np.int32))):
        model = build()
        path = export.export_saved_model(model, tmp_path).path
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
        (name,) = served.structured_input_signature[1]
        np.testing.assert_allclose(served(**{name: tf.constant(other)})["outputs"], model(other), rtol=1e-4, atol=1e-6)


def test_other_formats_take_the_same_names(tmp_path):
    model = two_inputs_and_outputs()
    formats = ["dense", "tflite", *(["onnx"] if importlib.util.find_spec("tf2onnx") else [])]
    for result in export.export_saved_model(model, tmp_path, formats, sample={"left": LEFT, "right": RIGHT}).values():
        assert result.max_abs_difference < 1e-5


@pytest.mark.parametrize("build", ["segmentation", "text"])
def test_onnx_keeps_open_sizes_and_types(build, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = {"segmentation": segmentation, "text": text}[build]()
    other = {"segmentation": np.ones((1, 5, 9, 3), np.float32), "text": np.ones((2, 3), np.int32)}[build]
    path = export.export_saved_model(model, tmp_path, formats="onnx").path
    session = onnxruntime.InferenceSession(str(path / "model.onnx"))
    (given,) = session.get_inputs()
    np.testing.assert_allclose(session.run(["outputs"], {given.name: other})[0], model(other), rtol=1e-4, atol=1e-6)


def test_probabilities_are_those_of_the_head_for_every_pixel(tmp_path):
    photo = keras.Input((8, 8, 3), name="photo")
    model = keras.Model(photo, iterand_tf.SubnetConv2D(4, 3, seed=0)(photo))
    path = export.export_saved_model(model, tmp_path, head="softmax", labels=list("abcd")).path
    outputs = tf.saved_model.load(str(path)).signatures["serving_default"](photo=tf.ones((1, 8, 8, 3)))
    np.testing.assert_allclose(tf.reduce_sum(outputs["probabilities"], axis=-1), np.ones((1, 6, 6)), rtol=1e-5)


def test_the_gate_compares_every_output():
    expected = {"first": np.ones(3, np.float32), "second": np.arange(3)}
    compare_outputs(expected | {"probabilities": np.zeros(1)}, expected)
    with pytest.raises(ExportError, match=r"the reloaded outputs differ .* in second"):
        compare_outputs(expected | {"second": np.arange(3) + 1}, expected)


def test_the_warm_up_request_has_every_input(tmp_path):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = export.export_saved_model(two_inputs_and_outputs(), tmp_path).path
    (record,) = tf.data.TFRecordDataset(str(path / "assets.extra" / "tf_serving_warmup_requests")).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert {name: tf.make_ndarray(value).shape for name, value in request.inputs.items()} == {
        "left": (1, 6),
        "right": (1, 3),
    }


def test_embeddings_are_packed(tmp_path):
    path = export.export_saved_model(text(), tmp_path).path
    kernels = json.loads((path / "assets.extra" / "export.json").read_text())["kernels"]
    assert [kernel["name"].split("/")[1] for kernel in kernels] == ["embeddings", "kernel"]


@pytest.mark.parametrize(
    ("build", "sample", "sentence"),
    [
        (two_inputs_and_outputs, LEFT, r"sample must have the inputs \['left', 'right'\]"),
        (two_inputs_and_outputs, {"left": LEFT}, "sample must have the inputs"),
        (two_inputs_and_outputs, {"left": LEFT, "right": LEFT}, r"of shape \(3,\). Received: right.shape=\(4, 6\)"),
        (text, TOKENS / 2, "sample must be of type int32"),
        (lambda: keras.Sequential([keras.Input((), dtype="string"), layers.Identity()]), None, "no inputs of text"),
    ],
)
def test_what_does_not_fit_is_refused(build, sample, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        export.export_saved_model(build(), tmp_path, sample=sample)
    assert not list(tmp_path.iterdir())


def test_decoders_and_heads_are_for_one_input_and_output(tmp_path):
    model = two_inputs_and_outputs()
    with pytest.raises(ValueError, match="head goes with a model of one output"):
        export.export_saved_model(model, tmp_path, head="softmax")
    with pytest.raises(ValueError, match="decode must be left out for a model of several inputs"):
        export.export_saved_model(model, tmp_path, decode=lambda encoded: tf.zeros(6))
    with pytest.raises(ValueError, match="labels must be left out for a model of several outputs"):
        export.export_saved_model(model, tmp_path, labels=["a", "b", "c"])
