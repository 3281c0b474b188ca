"""SavedModels: layout, signature, size, parity, refusals, nothing left behind."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import export
import iterand_tf
from export import saved_model
from iterand_tf.errors import ExportError


@pytest.fixture
def model():
    return iterand_tf.models.build("conv2", (8, 8, 1), 10, iterand_tf.models.SubnetFactory(sparsity=0.6))


IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)


def test_loads_and_agrees_where_the_project_is_not_importable(model, tmp_path):
    result = export.export_saved_model(model, tmp_path / "served", version=7, sample=IMAGES)
    assert result.path == tmp_path / "served" / "7"
    assert result.max_abs_difference == 0
    np.save(tmp_path / "images.npy", IMAGES)
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "loaded = tf.saved_model.load('served/7')\n"
        "outputs = loaded.signatures['serving_default'](image=tf.constant(np.load('images.npy')))\n"
        "np.savez('outputs.npz', **{name: value.numpy() for name, value in outputs.items()})\n"
        "assert 'iterand_tf' not in sys.modules and 'export' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npz")
    np.testing.assert_array_equal(outputs["logits"], model(IMAGES))
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(model(IMAGES)), rtol=1e-6)


def test_every_variable_is_written_once(model, tmp_path):
    result = export.export_saved_model(model, tmp_path)
    kernels = 4 * sum(layer.num_weights for layer in iterand_tf.subnet_layers(model))
    assert kernels < result.num_bytes < kernels + 60_000
    assert result.num_weights * 4 == kernels
    assert result.metrics()["entropy_bits_per_weight"] == pytest.approx(0.971 + 0.4, abs=0.01)


def test_versions_count_up_and_are_never_overwritten(model, tmp_path):
    for version in ("1", "2"):
        assert export.export_saved_model(model, tmp_path).path.name == version
    with pytest.raises(ExportError, match="exists already"):
        export.export_saved_model(model, tmp_path, version=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with pytest.raises(ValueError, match="at least 1"):
        export.export_saved_model(model, tmp_path, version=0)


def test_a_difference_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch):
    bake = saved_model.bake

    def wrong_bake(model):
        baked = bake(model)
        baked.get_layer("head").kernel.assign(baked.get_layer("head").kernel * 1.01)
        return baked

    monkeypatch.setattr(saved_model, "bake", wrong_bake)
    with pytest.raises(ExportError, match="reloaded logits differ"):
        export.export_saved_model(model, tmp_path / "served", sample=IMAGES)
    assert list((tmp_path / "served").iterdir()) == []


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def full_disk(module, path, **kwargs):
        (tmp_path / "served").mkdir(exist_ok=True)
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        export.export_saved_model(model, tmp_path / "served")
    assert list((tmp_path / "served").iterdir()) == []


def test_refuses_models_that_are_not_classifiers_with_logits(tmp_path):
    dense = iterand_tf.SubnetDense
    inputs = keras.Input((4,))
    for wrong, sentence in (
        (keras.Sequential([inputs, dense(2, activation="softmax")]), "ends in logits"),
        (keras.Sequential([inputs, dense(2), keras.layers.Softmax()]), "ends in logits"),
        (keras.Model(inputs, {"a": dense(2)(inputs)}), "one input and one output"),
        (keras.Model(inputs, [dense(2)(inputs), dense(2)(inputs)]), "one input and one output"),
    ):
        with pytest.raises(ValueError, match=sentence):
            export.export_saved_model(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_of_another_shape_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"inputs of shape \(8, 8, 1\)"):
        export.export_saved_model(model, tmp_path, sample=IMAGES[:, :4])


def test_open_dimensions_and_frozen_models(tmp_path):
    layers = [iterand_tf.SubnetConv2D(4, 3), keras.layers.GlobalAveragePooling2D(), iterand_tf.SubnetDense(2)]
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    model.trainable = False
    assert export.export_saved_model(model, tmp_path).num_weights == 3 * 3 * 3 * 4 + 8


def test_a_model_in_mixed_precision_serves_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10)
    result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    signature = tf.saved_model.load(str(result.path)).signatures["serving_default"]
    assert signature(image=tf.constant(IMAGES))["logits"].dtype == tf.float32
