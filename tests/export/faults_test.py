"""What an export says of a model: only what is known of it, whatever its head, its input and the global policy."""

import errno
import pathlib
import subprocess
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import export
import iterand_tf
from export import artifact
from iterand_tf.errors import ExportError
from iterand_tf.layers import SubnetKernel
from iterand_tf.strategies.strategy import mirrored

INPUTS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
IMAGES = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 3)).astype(np.float32)


def dense(units, **arguments):
    return keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(units, **arguments)])


def loaded(model, path, **options):
    return tf.saved_model.load(str(export.export_saved_model(model, path, **options).path))


@pytest.mark.parametrize("arguments", [{"units": 1}, {"units": 1, "activation": "sigmoid"}, {"units": 3}])
def test_probabilities_are_not_guessed(arguments, tmp_path):
    model = dense(**arguments)
    outputs = loaded(model, tmp_path, sample=INPUTS).signatures["serving_default"](image=tf.constant(INPUTS))
    assert set(outputs) == {"outputs"}
    np.testing.assert_allclose(outputs["outputs"], model(INPUTS), rtol=1e-5)


def test_a_softmax_that_the_model_has_is_served_as_it_is(tmp_path):
    model = dense(3, activation="softmax")
    outputs = loaded(model, tmp_path, sample=INPUTS).signatures["serving_default"](image=tf.constant(INPUTS))
    np.testing.assert_allclose(outputs["outputs"], model(INPUTS), rtol=1e-5)


@pytest.mark.parametrize(("head", "units", "function"), [("softmax", 3, tf.nn.softmax), ("sigmoid", 1, tf.nn.sigmoid)])
def test_probabilities_are_those_of_the_head_that_the_caller_names(head, units, function, tmp_path):
    model = dense(units)
    outputs = loaded(model, tmp_path, head=head).signatures["serving_default"](image=tf.constant(INPUTS))
    assert set(outputs) == {"logits", "probabilities"}
    np.testing.assert_allclose(outputs["probabilities"], function(model(INPUTS)), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "head", "sentence"),
    [
        (dense(1), "softmax", "a single logit has the head 'sigmoid'"),
        (dense(3, activation="softmax"), "softmax", "must end in logits"),
        (dense(3), "linear", "head must be one of softmax, sigmoid"),
    ],
)
def test_a_head_that_cannot_be_is_refused(model, head, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        export.export_saved_model(model, tmp_path, head=head)
    assert not list(tmp_path.iterdir())


def test_a_networks_of_one_output_has_no_probabilities(tmp_path):
    model = iterand_tf.models.build("conv2", (8, 8, 3), 1)
    outputs = loaded(model, tmp_path).signatures["serving_default"](image=tf.constant(IMAGES))
    assert set(outputs) == {"outputs"}


def image_model(*layers):
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Flatten(), iterand_tf.SubnetDense(3)])


def test_encoded_images_are_served_only_where_it_is_known_how_to_decode_them(tmp_path):
    trained_on_unit_range = image_model()
    assert list(loaded(trained_on_unit_range, tmp_path / "a").signatures) == ["serving_default"]

    def decode(encoded):
        image = tf.image.convert_image_dtype(tf.io.decode_png(encoded, 3), tf.float32)
        return tf.image.resize(image, (8, 8))

    image = tf.io.encode_png(np.full((8, 8, 3), 51, np.uint8))
    served = loaded(trained_on_unit_range, tmp_path / "b", decode=decode).signatures["serve_jpeg"]
    expected = trained_on_unit_range(np.full((1, 8, 8, 3), 0.2, np.float32))
    np.testing.assert_allclose(served(image_bytes=tf.stack([image]))["outputs"], expected, rtol=1e-4, atol=1e-5)


def test_labels_may_be_an_array_and_are_one_for_each_output(tmp_path):
    path = export.export_saved_model(dense(3), tmp_path, labels=np.array(["a", "b", "ö"])).path
    assert (path / "assets" / "labels.txt").read_bytes() == "a\nb\nö\n".encode()
    with pytest.raises(ValueError, match="labels must be 3 class names, one for each output"):
        export.export_saved_model(dense(3), tmp_path, labels=["only one"])


def test_the_version_may_be_numpys(tmp_path):
    assert export.export_saved_model(dense(3), tmp_path, version=np.int64(3)).path.name == "3"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_global_policy_does_not_matter_to_a_float32_model(policy, tmp_path):
    inner = keras.Sequential([keras.Input((8, 8, 3)), iterand_tf.SubnetConv2D(4, 3, padding=1, name="padded")])
    model = image_model(inner, keras.layers.BatchNormalization(), iterand_tf.SubnetConv2D(4, 3, padding=1))
    expected = model(IMAGES)
    keras.config.set_dtype_policy(policy)
    result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    assert result.max_abs_difference <= 1e-6 * np.abs(expected).max()
    np.testing.assert_array_equal(export.bake(model)(IMAGES), expected)


def test_batch_normalization_after_a_padded_convolution_is_folded(tmp_path):
    normalization = keras.layers.BatchNormalization()
    model = image_model(iterand_tf.SubnetConv2D(4, 3, padding=1), normalization)
    normalization.moving_mean.assign([0.1, 0.2, 0.3, 0.4])
    normalization.moving_variance.assign([0.5, 1.0, 2.0, 3.0])
    folded = export.fold.fold_batch_normalization(export.bake(model))
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.model.layers)
    np.testing.assert_allclose(folded.model(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)
    assert export.export_saved_model(model, tmp_path, sample=IMAGES).max_abs_difference < 1e-4


def test_stateful_layers_are_refused_in_a_sentence(tmp_path):
    layers = [keras.layers.LSTM(4, stateful=True), iterand_tf.SubnetDense(2)]
    model = keras.Sequential([keras.Input(batch_shape=(8, 5, 3)), *layers])
    with pytest.raises(ValueError, match="export takes no stateful layers"):
        export.export_saved_model(model, tmp_path)


class WithoutConfig(keras.layers.Layer):
    """A user's layer whose get_config fails."""

    def call(self, inputs):
        return inputs * 2

    def get_config(self):
        return {"scale": self.scale}


def test_what_keeps_batch_normalization_from_being_folded_is_said(tmp_path):
    model = image_model(iterand_tf.SubnetConv2D(4, 3), keras.layers.BatchNormalization(), WithoutConfig(name="mine"))
    with pytest.warns(UserWarning, match="the layer mine cannot be made again from its configuration.*not folded"):
        result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    assert result.max_abs_difference < 1e-5


def test_a_fault_of_our_own_is_no_reason_not_to_fold(tmp_path, monkeypatch):
    def broken(kernel):
        raise TypeError("a fault in the library")

    monkeypatch.setattr(SubnetKernel, "baked", broken)
    with pytest.raises(TypeError, match="a fault in the library"), warnings.catch_warnings(action="error"):
        export.export_saved_model(image_model(iterand_tf.SubnetConv2D(4, 3)), tmp_path, sample=IMAGES)


@pytest.mark.fresh_process
def test_a_check_that_does_not_start_is_told_from_a_full_disk(tmp_path, monkeypatch):
    def no_process(*arguments, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(artifact.subprocess, "run", no_process)
    with pytest.raises(ExportError, match="the process that reloads the export could not be started"):
        export.export_saved_model(dense(3), tmp_path / "export")
    assert subprocess.run is no_process
    assert not (tmp_path / "export").exists()


def test_an_error_of_the_callers_decoder_is_no_error_of_writing(tmp_path):
    def decode(encoded):
        raise OSError("the decoder's own")

    with pytest.raises(OSError, match="the decoder's own"):
        export.export_saved_model(image_model(), tmp_path / "export", decode=decode)
    assert not (tmp_path / "export").exists()


class WithUnusedLayer(keras.Model):
    def __init__(self):
        super().__init__()
        self.unused, self.head = iterand_tf.SubnetDense(5), iterand_tf.SubnetDense(3)

    def call(self, inputs):
        return self.head(inputs)


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer")
def test_a_layer_that_no_call_uses_is_left_out(tmp_path):
    model = WithUnusedLayer()
    model(INPUTS)
    result = export.export_saved_model(model, tmp_path, sample=INPUTS)
    assert (result.num_weights, result.max_abs_difference) == (12, 0)


def test_a_dense_export_loads_in_the_scope_of_a_strategy(tmp_path):
    """The guide says so, since a packed one does not."""
    model = dense(3)
    path = export.export_saved_model(model, tmp_path, formats="dense").path
    with mirrored(("CPU:0", "CPU:1")).scope():
        served = tf.saved_model.load(str(path))
    outputs = served.signatures["serving_default"](image=tf.constant(INPUTS))["outputs"]
    np.testing.assert_allclose(outputs, model(INPUTS), rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("abc", "a sequence of class names"),
        ({"a": 0, "b": 1, "c": 2}, "a sequence"),
        (["a", "b", "c\nd"], "one line each"),
    ],
)
def test_labels_that_are_no_names_are_refused(labels, sentence, tmp_path):
    with pytest.raises(ValueError, match=f"labels must be .*{sentence}"):
        export.export_saved_model(dense(3), tmp_path, labels=labels)


def test_a_decoder_of_another_type_or_shape_is_refused(tmp_path):
    for decode in (lambda encoded: tf.io.decode_png(encoded, 3), lambda encoded: tf.zeros((4, 4, 3))):
        with pytest.raises(
            ValueError, match="decode must be a function of an encoded image that gives a float32 tensor"
        ):
            export.export_saved_model(image_model(), tmp_path, decode=decode)


def test_a_path_elsewhere_is_refused_as_text_and_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("gs://bucket/export", pathlib.Path("gs://bucket/export")):
        with pytest.raises(ExportError, match="is not in the local file system"):
            export.export_saved_model(dense(3), place)
    assert not list(tmp_path.iterdir())
