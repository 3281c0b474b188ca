"""SavedModels: layout, signature, size, parity, refusals, nothing left behind."""

import gc
import pathlib
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import export
import iterand_tf
from export import bake, saved_model
from export.pack import encode
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


def test_dense_writes_every_variable_once(model, tmp_path):
    result = export.export_saved_model(model, tmp_path, export_format="dense")
    kernels = 4 * sum(layer.num_weights for layer in iterand_tf.subnet_layers(model))
    assert kernels < result.num_bytes < kernels + 60_000
    assert result.num_weights * 4 == result.kernel_bytes == kernels
    assert result.metrics()["bits_per_weight"] == 32
    assert result.metrics()["entropy_bits_per_weight"] == pytest.approx(0.971 + 0.4, abs=0.01)


def test_packed_is_near_the_entropy(tmp_path):
    model = iterand_tf.models.build("conv6", (32, 32, 3), 10)
    result = export.export_saved_model(model, tmp_path)
    assert result.metrics()["bits_per_weight"] <= 1.02 * result.metrics()["entropy_bits_per_weight"]
    assert result.num_bytes <= 480_000


@pytest.mark.parametrize("distribution", ["signed_constant", "kaiming_uniform"])
def test_packed_and_dense_answer_alike(distribution, tmp_path):
    factory = iterand_tf.models.SubnetFactory(sparsity=0.6, weight_distribution=distribution)
    model = iterand_tf.models.build("resnet18", (8, 8, 1), 10, factory, width_factor=0.125)
    paths = [export.export_saved_model(model, tmp_path, export_format=name).path for name in ("packed", "dense")]
    packed, dense = (tf.saved_model.load(str(path)).signatures["serving_default"] for path in paths)
    np.testing.assert_array_equal(packed(image=IMAGES)["logits"], dense(image=IMAGES)["logits"])


def test_a_packed_signature_outlives_the_loaded_object_and_loads_do_not_pile_up(model, tmp_path):
    path = str(export.export_saved_model(model, tmp_path, version=1).path)
    expected = model(IMAGES)
    alive = []
    for _ in range(4):
        signature = tf.saved_model.load(path).signatures["serving_default"]
        gc.collect()
        np.testing.assert_array_equal(signature(image=IMAGES)["logits"], expected)
        alive.append([weakref.ref(handle) for handle in signature.captured_inputs])
        del signature
    gc.collect()
    assert alive[0]
    assert not any(reference() for references in alive for reference in references)


def test_two_packed_models_in_one_process_keep_their_kernels(model, tmp_path):
    other = iterand_tf.models.build("conv2", (8, 8, 1), 10, iterand_tf.models.SubnetFactory(seed=9))
    paths = [str(export.export_saved_model(m, tmp_path).path) for m in (model, other)]
    loaded = [tf.saved_model.load(path).signatures["serving_default"] for path in paths]
    for trained, signature in zip((model, other), loaded, strict=True):
        np.testing.assert_array_equal(signature(image=IMAGES)["logits"], trained(IMAGES))


def test_packed_in_the_loader_of_version_one(model, tmp_path):
    path = str(export.export_saved_model(model, tmp_path).path)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
        logits = session.run(signature.outputs["logits"].name, {signature.inputs["image"].name: IMAGES})
    np.testing.assert_allclose(logits, model(IMAGES), rtol=1e-4, atol=1e-4)


def test_packed_by_saved_model_cli(model, tmp_path):
    path = export.export_saved_model(model, tmp_path / "served").path
    np.save(tmp_path / "images.npy", IMAGES)
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    flags = ["--tag_set=serve", "--signature_def=serving_default", f"--inputs=image={tmp_path}/images.npy"]
    command = [str(cli), "run", f"--dir={path}", *flags, f"--outdir={tmp_path}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("export_format", saved_model.FORMATS)
def test_in_the_c_api_that_tensorflow_serving_uses(model, tmp_path, export_format):
    library = pathlib.Path(tf.__file__).with_name("libtensorflow_cc.so.2")
    if not library.exists():
        pytest.skip("this TensorFlow has its C API elsewhere")
    path = export.export_saved_model(model, tmp_path / "served", export_format=export_format).path
    contents = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = contents.meta_graphs[0].signature_def["serving_default"]
    (source, _), (target, index) = (
        value.name.split(":") for value in (signature.inputs["image"], signature.outputs["logits"])
    )
    np.save(tmp_path / "images.npy", IMAGES)
    client = pathlib.Path(__file__).with_name("c_api_client.py")
    arguments = [str(value) for value in (library, path, source, target, index, tmp_path)]
    subprocess.run([sys.executable, str(client), *arguments], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_packed_kernel_is_never_a_wrong_answer(model, tmp_path, seed):
    path = export.export_saved_model(model, tmp_path).path
    packed = encode(bake(model).get_layer("hidden1").kernel.numpy())
    graph = path / "saved_model.pb"
    contents = bytearray(graph.read_bytes())
    start = contents.index(packed.codes)
    position = start + int(np.random.default_rng(seed).integers(len(packed.codes)))
    contents[position] ^= 1 << (seed % 8)
    graph.write_bytes(contents)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=r"damaged|inflate"):
        tf.saved_model.load(str(path))


def test_a_truncated_artifact_does_not_load(model, tmp_path):
    path = export.export_saved_model(model, tmp_path).path
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1000])
    with pytest.raises(OSError, match="parse"):
        tf.saved_model.load(str(path))


def test_refuses_other_formats(model, tmp_path):
    with pytest.raises(ValueError, match="export_format must be one of packed, dense"):
        export.export_saved_model(model, tmp_path, export_format="zip")


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
    result = export.export_saved_model(model, tmp_path)
    assert result.num_weights == 3 * 3 * 3 * 4 + 8
    assert result.kernel_bytes < result.num_weights


def test_a_model_in_mixed_precision_serves_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10)
    result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    signature = tf.saved_model.load(str(result.path)).signatures["serving_default"]
    assert signature(image=tf.constant(IMAGES))["logits"].dtype == tf.float32
