"""SavedModels: layout, signature, size, parity, refusals, nothing left behind."""

import gc
import json
import shutil
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_disk import files_of_at_most
from saved_model_loaders import LOADERS

import export
import iterand_tf
from export import artifact, network, serving_extras
from export.bits import compress
from export.pack import encode
from iterand_tf import bake
from iterand_tf.errors import ExportError

IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """The network that most tests export; none of them changes it."""
    return iterand_tf.models.build("conv2", (8, 8, 1), 10, iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6)))


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory):
    """One packed export, reloaded in a fresh process, for all tests that only read what it wrote."""
    return export.export_saved_model(model, tmp_path_factory.mktemp("packed"), version=7, sample=IMAGES)


@pytest.fixture
def packed_copy(packed, tmp_path):
    """A copy of its directory, to be damaged."""
    return shutil.copytree(packed.path, tmp_path / "copy")


def test_loads_and_agrees_where_the_project_is_not_importable(model, packed, tmp_path):
    assert packed.path.name == "7"
    assert packed.max_abs_difference == 0
    np.save(tmp_path / "images.npy", IMAGES)
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "outputs = loaded.signatures['serving_default'](image=tf.constant(np.load('images.npy')))\n"
        "np.savez('outputs.npz', **{name: value.numpy() for name, value in outputs.items()})\n"
        "assert 'iterand_tf' not in sys.modules and 'export' not in sys.modules\n"
    )
    command = [sys.executable, "-I", "-c", script, str(packed.path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npz")
    np.testing.assert_array_equal(outputs["logits"], model(IMAGES))
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(model(IMAGES)), rtol=1e-6)


def test_dense_writes_every_variable_once(model, tmp_path):
    result = export.export_saved_model(model, tmp_path, formats="dense")
    kernels = 4 * sum(layer.num_weights for layer in iterand_tf.subnet_layers(model))
    assert kernels < result.num_bytes < kernels + 80_000
    assert result.num_weights * 4 == result.kernel_bytes == kernels
    assert result.metrics()["bits_per_weight"] == 32
    assert result.metrics()["entropy_bits_per_weight"] == pytest.approx(0.971 + 0.4, abs=0.01)


def test_packed_is_near_the_entropy(tmp_path):
    model = iterand_tf.models.build("conv6", (32, 32, 3), 10)
    result = export.export_saved_model(model, tmp_path)
    assert result.metrics()["bits_per_weight"] <= 1.02 * result.metrics()["entropy_bits_per_weight"]
    assert result.num_bytes <= 480_000


@pytest.mark.parametrize(("kind", "distribution"), [("resnet18", "signed_constant"), ("conv2", "kaiming_uniform")])
def test_packed_and_dense_answer_alike(kind, distribution, tmp_path):
    factory = iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6, weight_distribution=distribution))
    model = iterand_tf.models.build(kind, (8, 8, 1), 10, factory, width_factor=0.125, batch_normalization=True)
    paths = [export.export_saved_model(model, tmp_path, formats=name).path for name in ("packed", "dense")]
    packed, dense = (tf.saved_model.load(str(path)).signatures["serving_default"] for path in paths)
    np.testing.assert_array_equal(packed(image=IMAGES)["logits"], dense(image=IMAGES)["logits"])


def test_a_packed_signature_outlives_the_loaded_object_and_loads_do_not_pile_up(model, packed):
    expected = model(IMAGES)
    alive = []
    for _ in range(4):
        signature = tf.saved_model.load(str(packed.path)).signatures["serving_default"]
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


# The tool loads as version 1 does.
@pytest.mark.parametrize("export_format", ["packed", "dense"])
@pytest.mark.parametrize("loader", ["version 1", pytest.param("saved_model_cli", marks=pytest.mark.slow), "C API"])
def test_in_other_loaders(loader, model, packed, tmp_path, export_format):
    """TensorFlow Serving uses the C API."""
    if export_format == "packed":
        path = packed.path
    else:
        path = export.export_saved_model(model, tmp_path / "served", formats=export_format).path
    outputs = LOADERS[loader](path, {"image": IMAGES}, tmp_path)
    np.testing.assert_allclose(outputs["logits"], model(IMAGES), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(model(IMAGES)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_packed_kernel_is_never_a_wrong_answer(model, packed_copy, seed):
    codes = encode(bake(model).get_layer("hidden1").kernel.numpy()).parts[0]
    graph = packed_copy / "saved_model.pb"
    contents = bytearray(graph.read_bytes())
    position = contents.index(codes) + int(np.random.default_rng(seed).integers(len(codes)))
    contents[position] ^= 1 << (seed % 8)
    graph.write_bytes(contents)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=r"damaged|inflate"):
        tf.saved_model.load(str(packed_copy))


def test_a_truncated_artifact_does_not_load(packed_copy):
    graph = packed_copy / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1000])
    with pytest.raises(OSError, match="parse"):
        tf.saved_model.load(str(packed_copy))


def test_refuses_other_formats(model, tmp_path):
    for formats in (["zip"], ["packed", "packed"], [], "packed,dense", "zip"):
        with pytest.raises(ValueError, match="formats must be one or several of packed, dense, tflite, onnx"):
            export.export_saved_model(model, tmp_path, formats)
    assert not list(tmp_path.iterdir())


def test_gives_a_result_for_a_name_and_a_dictionary_for_a_list(model, tmp_path):
    result = export.export_saved_model(model, tmp_path, "packed")
    assert isinstance(result, export.ExportResult)
    assert result.path == tmp_path / "1"
    for formats in (["dense"], ("dense",)):
        results = export.export_saved_model(model, tmp_path, formats)
        assert {name: type(each) for name, each in results.items()} == {"dense": export.ExportResult}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3"]


def test_versions_count_up_and_are_never_overwritten(model, tmp_path):
    for version in ("1", "2"):
        assert export.export_saved_model(model, tmp_path).path.name == version
    with pytest.raises(ExportError, match="exists already"):
        export.export_saved_model(model, tmp_path, version=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with pytest.raises(ValueError, match="at least 1"):
        export.export_saved_model(model, tmp_path, version=0)


def test_a_difference_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch):
    def wrong_bake(model):
        baked = bake(model)
        baked.get_layer("head").kernel.assign(baked.get_layer("head").kernel * 1.01)
        return baked

    monkeypatch.setattr(network, "bake", wrong_bake)
    with pytest.raises(ExportError, match="reloaded outputs differ"):
        export.export_saved_model(model, tmp_path / "served", sample=IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def full_disk(module, path, **kwargs):
        (tmp_path / "served").mkdir(exist_ok=True)
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        export.export_saved_model(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())


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


def test_several_formats_lie_side_by_side(model, tmp_path):
    export.export_saved_model(model, tmp_path / "dense", version=4, formats="dense")
    results = export.export_saved_model(model, tmp_path, ["packed", "dense", "tflite"])
    assert {name: result.path for name, result in results.items()} == {
        name: tmp_path / name / "5" for name in ("packed", "dense", "tflite")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"packed", "dense", "tflite"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_values_of_a_smaller_type(dtype, tmp_path):
    factory = iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6, weight_distribution="kaiming_uniform"))
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10, factory)
    result = export.export_saved_model(model, tmp_path, sample=IMAGES, kernel_dtype=dtype, seeded=False)
    assert result.metrics()["bits_per_weight"] <= 7.7
    assert result.metrics()["bits_per_weight"] <= 1.02 * result.metrics()["entropy_bits_per_weight"]
    assert 0 < result.max_abs_difference < 0.05 * np.abs(model(IMAGES)).max()


def test_a_smaller_type_leaves_ternary_kernels_exact(model, tmp_path):
    assert export.export_saved_model(model, tmp_path, sample=IMAGES, kernel_dtype="bfloat16").max_abs_difference == 0


def test_values_too_large_for_the_type_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((80,)), keras.layers.Dense(8, kernel_initializer="random_normal")])
    model.layers[0].kernel.assign(model.layers[0].kernel * 1e8)
    with pytest.raises(ValueError, match="too large for float16"):
        export.export_saved_model(model, tmp_path, kernel_dtype="float16")


def test_logits_that_are_not_finite_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    model.layers[0].bias.assign(np.full(8, np.nan))
    with pytest.raises(ExportError, match="not finite"):
        export.export_saved_model(model, tmp_path)


@pytest.mark.parametrize("export_format", ["packed", "dense"])
def test_serves_encoded_images_with_labels(export_format, tmp_path):
    model = iterand_tf.models.build("conv2", (8, 8, 3), 10)
    labels = [f"class {number}" for number in range(10)]
    path = export.export_saved_model(model, tmp_path, formats=export_format, labels=labels).path
    assert (path / "assets" / "labels.txt").read_text().splitlines() == labels
    small, large = np.full((8, 8, 3), 7, np.uint8), np.full((40, 30, 3), 200, np.uint8)
    small[2:5, 3:] = 90
    encoded = [tf.io.encode_png(small), tf.io.encode_jpeg(large, quality=100)]
    outputs = tf.saved_model.load(str(path)).signatures["serve_jpeg"](image_bytes=tf.stack(encoded))
    expected = model(np.stack([small, np.full((8, 8, 3), 200)]).astype(np.float32))
    np.testing.assert_allclose(outputs["logits"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(expected), rtol=1e-4, atol=1e-6)


def test_the_decoder_may_be_given(model, tmp_path):
    def decode(encoded):
        return tf.zeros((8, 8, 1)) + tf.cast(tf.strings.length(encoded), tf.float32) % 100

    path = export.export_saved_model(model, tmp_path, decode=decode).path
    outputs = tf.saved_model.load(str(path)).signatures["serve_jpeg"](image_bytes=tf.constant(["four"]))
    np.testing.assert_allclose(outputs["logits"], model(np.full((1, 8, 8, 1), 4.0)), rtol=1e-4, atol=1e-4)


def test_a_model_that_takes_no_images_has_one_signature(tmp_path):
    model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2)])
    loaded = tf.saved_model.load(str(export.export_saved_model(model, tmp_path).path))
    assert list(loaded.signatures) == ["serving_default"]


def test_records_where_it_comes_from(model, tmp_path):
    path = export.export_saved_model(model, tmp_path, flags="--model=conv2\n--seed=0\n").path
    record = json.loads((path / "assets.extra" / "export.json").read_text())
    assert record["flags"] == ["--model=conv2", "--seed=0"]
    assert record["packages"]["tensorflow"] == tf.__version__
    assert record["packages"]["iterand_tf"] == iterand_tf.__version__


def test_a_warm_up_request_is_kept(packed):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = packed.path / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["image"]), np.zeros((1, 8, 8, 1)))


@pytest.mark.fresh_process
def test_warm_up_requests_are_run_before_they_are_kept(model, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_serving")
    write = serving_extras.write_warmup
    monkeypatch.setattr(serving_extras, "write_warmup", lambda path, sample: write(path, {"image": np.zeros((1, 2))}))
    with pytest.raises(ExportError, match="does not load in a fresh process"):
        export.export_saved_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_serving_api_there_are_no_warm_up_requests(model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = export.export_saved_model(model, tmp_path).path
    assert [entry.name for entry in (path / "assets.extra").iterdir()] == ["export.json"]


@pytest.mark.fresh_process
def test_what_does_not_load_elsewhere_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch):
    write = artifact.write_saved_model

    def write_and_truncate(network, path, *arguments):
        write(network, path, *arguments)
        (path / "saved_model.pb").write_bytes((path / "saved_model.pb").read_bytes()[:-1000])

    monkeypatch.setattr(artifact, "write_saved_model", write_and_truncate)
    with pytest.raises(ExportError, match="does not load in a fresh process"):
        export.export_saved_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_bias_or_scale_is_never_a_wrong_answer(tmp_path):
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10, batch_normalization=True)
    model(IMAGES, training=True)
    served = network.Network.of(model)
    path = export.export_saved_model(model, tmp_path, sample=IMAGES).path
    written = (path / "saved_model.pb").read_bytes()
    scales = [kernel.scale for kernel in served.kernels if kernel.scale is not None]
    others = [each.numpy() for each in served.other_weights if each.dtype == "float32"]
    for arrays in (scales, others):
        joined = compress(np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8))
        start = written.index(joined)
        for place, bit in ((1, 0), (60, 1), (-11, 2), (-1, 7)):
            contents = bytearray(written)
            contents[start + place % len(joined)] ^= 1 << bit
            (path / "saved_model.pb").write_bytes(contents)
            with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=r"damaged|inflate"):
                tf.saved_model.load(str(path))


def test_a_decoder_that_does_not_load_elsewhere_is_refused(model, tmp_path):
    def decode(encoded):
        return tf.random.uniform((8, 8, 1), 0, 255)

    with pytest.raises(ExportError, match="reloaded outputs differ"):
        export.export_saved_model(model, tmp_path, sample=IMAGES, decode=decode)


@pytest.mark.parametrize("export_format", ["packed", "dense"])
def test_inputs_may_have_the_names_of_numbers(export_format, tmp_path):
    inputs = [keras.Input((2,), name=name) for name in "abc1"]
    answer = iterand_tf.SubnetDense(3, seed=0)(keras.layers.Concatenate()(inputs))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Activation("tanh")(answer)))
    assert export.export_saved_model(model, tmp_path, formats=export_format).max_abs_difference < 1e-6


@pytest.mark.parametrize("export_format", ["packed", "dense"])
def test_a_full_disk_is_refused_and_leaves_nothing(export_format, model, tmp_path):
    with files_of_at_most(50_000), pytest.raises(ExportError, match="could not be written"):
        export.export_saved_model(model, tmp_path / "a" / "b", formats=export_format)
    assert not list(tmp_path.iterdir())
