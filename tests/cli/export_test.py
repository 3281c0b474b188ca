"""A run of the command line, exported after its training or later."""

import json

import numpy as np
import pytest
import tensorflow as tf
from command_line import SMALL, here, result_of

from export.served_outputs import served_outputs
from iterand_tf import data


def test_the_export_is_in_the_serving_layout(trained_run):
    assert [path.name for path in trained_run.export_dir.iterdir()] == ["1"]
    signature = tf.saved_model.load(trained_run.export_dir / "1").signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["image"]
    assert set(signature.structured_outputs) == {"logits", "probabilities"}


def test_export_of_a_run_writes_the_next_version(model_dir, tmp_path):
    flags = ["--mode=export", f"--model_dir={model_dir}", f"--export_dir={tmp_path}/again"]
    assert here(*flags, "--export_checkpoint=last") == 0
    assert here(*flags) == 0
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["1", "2"]


def test_exports_every_format_with_labels_and_flags(model_dir, tmp_path, capsys):
    flags = ["--export_format=packed,dense,tflite", "--tflite_int8", "--export_kernel_dtype=bfloat16"]
    assert here("--mode=export", f"--model_dir={model_dir}", f"--export_dir={tmp_path}/export", *flags) == 0
    assert capsys.readouterr().out.count("reloaded in a fresh process") == 3
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"packed", "dense", "tflite"}
    packed = tmp_path / "export" / "packed" / "1"
    assert (packed / "assets" / "labels.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    record = json.loads((packed / "assets.extra" / "export.json").read_text())
    assert {"--model=conv2", "--rerandomization_period=5"} <= set(record["flags"])
    result = result_of(model_dir)
    for prefix, name in (("", "packed"), ("dense_", "dense"), ("tflite_", "tflite")):
        files = (tmp_path / "export" / name / "1").rglob("*")
        assert result[f"{prefix}export_bytes"] == sum(file.stat().st_size for file in files if file.is_file())
    test = data.load("digits").test
    answers = served_outputs(tmp_path / "export" / "tflite" / "1", {"image": test.images.astype(np.float32)}, b"")
    right = answers["sample"]["logits"].argmax(axis=-1) == test.labels
    assert result["tflite_test_accuracy"] == pytest.approx(right.mean())
    image = tf.io.encode_png(np.full((8, 8, 1), 255, np.uint8))
    signatures = tf.saved_model.load(str(packed)).signatures
    from_bytes = signatures["serve_jpeg"](image_bytes=tf.stack([image]))
    from_pixels = signatures["serving_default"](image=tf.fill((1, 8, 8, 1), 255.0))
    np.testing.assert_allclose(from_bytes["logits"], from_pixels["logits"], rtol=1e-5)


def test_no_epoch_exports_the_untrained_network(tmp_path):
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert here(*SMALL, "--epochs=0", *directories) == 0
    assert result_of(tmp_path / "model")["steps"] == 0
    assert (tmp_path / "export" / "1" / "saved_model.pb").exists()
