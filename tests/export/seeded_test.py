"""Exports whose kernels are drawn again when they are loaded: the same bits everywhere, or an error."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from saved_model_loaders import LOADERS
from tensorflow.core.protobuf import saved_model_pb2

import export
import iterand_tf
from export import network
from export.network import Network

IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)
EVENTS = 4


def trained(distribution, seed=0):
    """A network with statistics to fold, after re-randomizations on scores that move."""
    factory = iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6, weight_distribution=distribution), seed=seed)
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10, factory, batch_normalization=True)
    draw = np.random.default_rng(0)
    for event in range(EVENTS):
        for layer in iterand_tf.subnet_layers(model):
            layer.rerandomize(event + 1, 0.3)
            layer.scores.assign_add(draw.normal(0, layer.scores.numpy().std(), layer.scores.shape))
    model(IMAGES, training=True)
    return model


@pytest.fixture(scope="module", params=["kaiming_uniform", "signed_constant"])
def model(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_BYTES_TO_DRAW", 0)
        return export.export_saved_model(model, tmp_path_factory.mktemp("seeded"), sample=IMAGES)


@pytest.fixture(scope="module")
def by_value(model, tmp_path_factory):
    result = export.export_saved_model(model, tmp_path_factory.mktemp("by_value"), sample=IMAGES, seeded=False)
    assert not any(kernel["draws"] for kernel in records(result))
    return result


def records(result):
    return json.loads((result.path / "assets.extra" / "export.json").read_text())["kernels"]


def logits(path):
    return tf.saved_model.load(str(path)).signatures["serving_default"](image=tf.constant(IMAGES))["logits"]


def test_all_kernels_are_drawn_again_and_take_little(model, exported):
    uniform = iterand_tf.subnet_layers(model)[0].method.weight_distribution == "kaiming_uniform"
    for kernel in records(exported):
        assert kernel["coding"] == ("seeded" if uniform else "seeded_signs")
        assert kernel["draws"] == (EVENTS + 1 if uniform else 1)
        assert kernel["coded_entropy_bits"] < kernel["entropy_bits"]
    metrics = exported.metrics()
    assert metrics["bits_per_weight"] < 1.03 * metrics["coded_entropy_bits_per_weight"]
    assert metrics["coded_entropy_bits_per_weight"] < metrics["entropy_bits_per_weight"]


def test_the_kernels_are_those_of_the_network_bit_for_bit(model, exported):
    loaded = tf.saved_model.load(str(exported.path))
    for variable, kernel in zip(loaded.kernels, Network.of(model).kernels, strict=True):
        assert variable.numpy().tobytes() == kernel.served.tobytes()


@pytest.mark.parametrize(
    "loader", [each if each == "C API" else pytest.param(each, marks=pytest.mark.slow) for each in LOADERS]
)
def test_every_loader_answers_as_it_does_where_kernels_are_stored_by_value(loader, exported, by_value, tmp_path):
    answers = []
    for result in (exported, by_value):
        directory = tmp_path / str(len(answers))
        directory.mkdir()
        answers.append(LOADERS[loader](result.path, {"image": IMAGES}, directory))
    np.testing.assert_array_equal(answers[0]["logits"], answers[1]["logits"])
    np.testing.assert_allclose(answers[0]["logits"], logits(exported.path), rtol=1e-4, atol=1e-5)


def packed_parts(model):
    """The strings of the largest kernel: mask, draws, ..., seeds, magnitude."""
    kernels = Network.of(model).kernels
    return max(kernels, key=lambda kernel: kernel.values.size).drawn()[0].parts


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_in_any_string_is_an_error(part, model, exported, tmp_path):
    parts = packed_parts(model)
    contents = exported.path.joinpath("saved_model.pb").read_bytes()
    damaged = shutil.copytree(exported.path, tmp_path / "damaged")
    for seed in range(4):
        position = contents.index(parts[part]) + int(np.random.default_rng(seed).integers(len(parts[part])))
        changed = bytearray(contents)
        changed[position] ^= 1 << seed
        (damaged / "saved_model.pb").write_bytes(changed)
        with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=r"damaged|inflate"):
            tf.saved_model.load(str(damaged))


def with_strings(path, change):
    """Changes the strings of each packed kernel, and the checksums of the strings with them: only the entries tell."""
    file = path / "saved_model.pb"
    contents = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for function in contents.meta_graphs[0].graph_def.library.function:
        vectors = {}
        for node in function.node_def:
            if node.op == "Const" and len(node.attr["value"].tensor.string_val) > 2:
                change(node.attr["value"].tensor.string_val)
                vectors[node.name] = list(node.attr["value"].tensor.string_val)
        if vectors:
            yield function, vectors
    file.write_bytes(contents.SerializeToString())


@pytest.mark.parametrize("what", ["another seed", "a draw fewer", "another magnitude"])
def test_other_draws_under_right_checksums_are_an_error(what, exported, tmp_path):
    damaged = shutil.copytree(exported.path, tmp_path / "damaged")

    def change(strings):
        if what == "another seed":
            strings[1] = (np.frombuffer(strings[1], np.int32) + 1).astype(np.int32).tobytes()
        elif what == "a draw fewer":
            strings[1] = strings[1][:-4]
        else:
            strings[2] = (np.frombuffer(strings[2], np.float32) * 2).tobytes()

    for function, vectors in with_strings(damaged, change):
        # The checksums of the strings stand in the order of the kernels, those of other constants behind them.
        strings = [string for vector in vectors.values() for string in vector]
        sums = tf.strings.to_hash_bucket_fast(strings, 2**62).numpy()
        for node in function.node_def:
            if node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= sums.nbytes:
                tensor = node.attr["value"].tensor
                tensor.tensor_content = sums.tobytes() + tensor.tensor_content[sums.nbytes :]
    with pytest.raises(tf.errors.OpError):
        tf.saved_model.load(str(damaged))


def test_where_drawing_costs_more_than_it_saves_kernels_are_stored_by_value(tmp_path):
    model = iterand_tf.models.build(
        "conv2", (8, 8, 1), 10, iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6)), 0.5
    )
    results = [export.export_saved_model(model, tmp_path / str(seeded), seeded=seeded) for seeded in (True, False)]
    assert not any(kernel["draws"] for kernel in records(results[0]))
    assert results[0].num_bytes == results[1].num_bytes


def test_kernels_that_are_no_draws_are_stored_by_value_beside_those_that_are(tmp_path):
    model = trained("kaiming_uniform")
    layers = iterand_tf.subnet_layers(model)
    layers[0].kernel.assign(layers[0].kernel * 1.01)
    result = export.export_saved_model(model, tmp_path, sample=IMAGES)
    assert [kernel["draws"] > 0 for kernel in records(result)] == [False, *[True] * (len(layers) - 1)]


def test_values_of_a_smaller_type_are_not_rounded_where_they_are_drawn_again(tmp_path):
    model = trained("kaiming_uniform")
    result = export.export_saved_model(model, tmp_path, sample=IMAGES, kernel_dtype="bfloat16")
    assert result.max_abs_difference <= 1e-5 * np.abs(model(IMAGES)).max()
    np.testing.assert_allclose(logits(result.path), model(IMAGES), rtol=1e-4, atol=1e-4)
