"""The command line: trained, evaluated, resumed and exported end to end; every error is one sentence."""

import csv
import errno
import fcntl
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import main
from iterand_tf.data import examples
from iterand_tf.errors import ModelDirError
from iterand_tf.training import model_dir
from iterand_tf.training.callbacks import MetricsFile
from iterand_tf.training.config import option_fields

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = ["--dataset=digits", "--model=conv2", "--width_factor=0.25", "--batch_size=64", "--epochs=2"]


def command(*arguments, cwd=None):
    """Runs main.py in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def done(*arguments, cwd=None):
    result = command(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained and exported run, and what its training printed."""
    root = tmp_path_factory.mktemp("run")
    process = done(*SMALL, "--deterministic", "--rerandomization_period=5", f"--model_dir={root}/model",
                   f"--export_dir={root}/export")  # fmt: skip
    return root, process.stdout


def test_leaves_every_file_of_a_run(run):
    root, _ = run
    names = {path.name for path in (root / "model").iterdir()}
    assert names == {"flags.txt", "metrics.csv", "tensorboard", "checkpoints", "best.keras", "result.json"}
    result = json.loads((root / "model" / "result.json").read_text())
    assert result["test_accuracy"] > 0.5
    assert result["num_weights"] == 9 * 16 + 9 * 16 * 16 + 256 * 64 + 64 * 64 + 640
    assert result["num_kept"] == result["num_weights"] / 2
    assert result["sparsity"] == 0.5
    assert result["steps"] == 2 * 21
    assert result["images_per_second"] > 0
    assert result["max_abs_difference"] == 0
    assert result["bits_per_weight"] > result["entropy_bits_per_weight"] == pytest.approx(1.5, abs=0.01)
    size = sum(file.stat().st_size for file in (root / "export" / "1").rglob("*") if file.is_file())
    assert result["export_bytes"] == size
    with (root / "model" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["21", "42"]
    assert float(rows[1]["val_accuracy"]) == pytest.approx(result["validation_accuracy"])
    assert int(rows[1]["rerandomized_weights"]) > 0


def test_prints_one_line_an_epoch_and_the_weights_of_each_layer(run):
    _, printed = run
    assert [line.split("  ")[0] for line in printed.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert "stage1_conv2  3x3x16x16    2,304   1,152    1,152    0.5000" in printed


def test_the_export_is_in_the_serving_layout(run):
    root, _ = run
    assert [path.name for path in (root / "export").iterdir()] == ["1"]
    signature = tf.saved_model.load(root / "export" / "1").signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["image"]
    assert set(signature.structured_outputs) == {"logits", "probabilities"}


def test_evaluate_gives_the_accuracies_of_training(run):
    root, _ = run
    result = json.loads((root / "model" / "result.json").read_text())
    printed = done("--mode=evaluate", f"--model_dir={root}/model").stdout
    lines = dict(line.split(": ") for line in printed.splitlines())
    assert float(lines["test_accuracy"]) == result["test_accuracy"]
    assert float(lines["best_test_accuracy"]) == result["best_test_accuracy"]
    assert lines["num_test_examples"] == "360"


def test_export_of_a_run_writes_the_next_version(run):
    root, _ = run
    done("--mode=export", f"--model_dir={root}/model", f"--export_dir={root}/again", "--export_checkpoint=last")
    done("--mode=export", f"--model_dir={root}/model", f"--export_dir={root}/again")
    assert sorted(path.name for path in (root / "again").iterdir()) == ["1", "2"]


@pytest.mark.fresh_process
def test_exports_every_format_with_labels_and_flags(run, tmp_path, capsys):
    root, _ = run
    shutil.copytree(root / "model", tmp_path / "model")
    flags = ["--export_format=packed,dense,tflite", "--tflite_int8", "--export_kernel_dtype=bfloat16"]
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert main.main(["main.py", "--mode=export", *directories, *flags]) == 0
    assert "reloaded in a fresh process" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"packed", "dense", "tflite"}
    packed = tmp_path / "export" / "packed" / "1"
    assert (packed / "assets" / "labels.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    record = json.loads((packed / "assets.extra" / "export.json").read_text())
    assert {"--model=conv2", "--rerandomization_period=5"} <= set(record["flags"])
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    for prefix, name in (("", "packed"), ("dense_", "dense"), ("tflite_", "tflite")):
        files = (tmp_path / "export" / name / "1").rglob("*")
        assert result[f"{prefix}export_bytes"] == sum(file.stat().st_size for file in files if file.is_file())
    image = tf.io.encode_png(np.full((8, 8, 1), 255, np.uint8))
    signatures = tf.saved_model.load(str(packed)).signatures
    from_bytes = signatures["serve_jpeg"](image_bytes=tf.stack([image]))
    from_pixels = signatures["serving_default"](image=tf.fill((1, 8, 8, 1), 255.0))
    np.testing.assert_allclose(from_bytes["logits"], from_pixels["logits"], rtol=1e-5)


def test_the_flags_file_makes_the_run_anew(run, tmp_path):
    root, _ = run
    done(f"--flagfile={root}/model/flags.txt", "--export_dir=", f"--model_dir={tmp_path}/model")
    again, first = (json.loads((path / "model" / "result.json").read_text()) for path in (tmp_path, root))
    for name in ("test_accuracy", "validation_accuracy", "steps", "num_kept"):
        assert again[name] == first[name]


def test_no_epoch_exports_the_untrained_network(tmp_path):
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert main.main(["main.py", *SMALL, "--epochs=0", *directories]) == 0
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert result["steps"] == 0
    assert (tmp_path / "export" / "1" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--method=dense", "--learning_rate=0.01"],
        ["--method=edge_popup", "--score_transform=abs", "--weight_distribution=kaiming_uniform"],
        ["--optimizer=adamw", "--learning_rate=0.01", "--lr_schedule=multi_step", "--validation_split=0"],
        ["--strategy=mirrored", "--virtual_devices=2", "--batch_size=63", "--max_train_examples=191"],
        ["--precision=mixed_bfloat16", "--augmentation=cutmix", "--steps_per_execution=2", "--warmup_epochs=1"],
    ],
    ids=lambda flags: flags[0],
)
def test_methods_and_options_train(flags, tmp_path):
    directories = [f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export"]
    assert main.main(["main.py", *SMALL, "--max_train_examples=200", *flags, *directories]) == 0
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert result["test_accuracy"] >= 0
    assert result["sparsity"] == (0.0 if "--method=dense" in flags else 0.5)


# flags, exit code, a part of the sentence; RUN and NEW stand for directories of the test
BAD_INPUT = [
    (["--sparsty=0.5"], 1, "Unknown command line flag 'sparsty'"),
    (["--sparsity=1"], 1, "--sparsity must be at least 0 and below 1, not 1"),
    (["--sparsity=half"], 1, "sparsity"),
    (["--method=magic"], 1, "method"),
    (["train"], 1, "train is not a flag"),
    (["--flagfile=nowhere.flags"], 1, "nowhere.flags"),
    (["--rerandomization_period=-1"], 1, "--rerandomization_period must be at least 0"),
    (["--rerandomization_rate=2"], 1, "--rerandomization_rate must be at least 0 and at most 1"),
    (["--epochs=2", "--warmup_epochs=2"], 1, "must be above --warmup_epochs"),
    (["--model=conv8"], 1, "conv8 needs images of at least 16 pixels"),
    (["--width_factor=inf"], 1, "--width_factor must be above 0 and at most 64"),
    (["--image_size=64"], 2, "--image_size=64 does not go with --dataset=digits"),
    (["--validation_split=0.9999"], 2, "lower --validation_split=0.9999"),
    (["--dataset=folder:"], 2, "write --dataset=folder:PATH"),
    (["--dataset=no_such_set"], 2, "is not digits, folder:PATH or a dataset that TFDS knows"),
    (["--dataset=cifar10", "--data_dir=nowhere"], 2, "--data_dir=nowhere does not exist"),
    (["--dataset=imagenet2012", "--data_dir=."], 2, "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"),
    (["--dataset=folder:nowhere"], 2, "needs images in nowhere/train/CLASS/"),
    (["--model_dir=/proc/run"], 3, "cannot be written"),
    (["--model_dir=RUN"], 3, "holds a run; add --resume"),
    (["--model_dir=RUN", "--resume", "--seed=7"], 3, "was made by other flags"),
    (["--resume"], 3, "--resume needs --model_dir"),
    (["--mode=evaluate"], 3, "need --model_dir, the directory of a run"),
    (["--mode=evaluate", "--model_dir=RUN", "--model=conv4"], 3, "was made by other flags (--model=conv4"),
    (["--mode=evaluate", "--model_dir=nowhere"], 3, "holds no run"),
    (["--mode=export", "--model_dir=RUN", "--export_dir="], 4, "--export_dir is empty"),
    (["--export_dir=/proc/export"], 4, "cannot be written"),
    (["--export_format=packed,zip"], 1, "--export_format must be one or several of packed,dense,tflite"),
    (["--export_format=dense", "--export_kernel_dtype=float16"], 1, "goes with --export_format=packed only"),
    (["--strategy=mirrored"], 1, "needs several GPUs; on a CPU add --virtual_devices=2"),
    (["--strategy=multi_worker"], 1, "needs TF_CONFIG or Slurm"),
    (["--virtual_devices=2", "--jit_compile=true"], 1, "--jit_compile=true hangs on several devices"),
    (["--virtual_devices=2", "--steps_per_execution=3"], 1, "--steps_per_execution above 1 fails on several devices"),
    (["--virtual_devices=2", "--batch_size=1"], 1, "--batch_size=1 must be at least the number of devices, 2"),
    (["--steps_per_execution=5"], 1, "--steps_per_execution=5 must divide the 11 steps of an epoch: one of 1, 11"),
    (["--deterministic", "--augmentation=mixup"], 1, "--augmentation=mixup draws from keras_cv's own generators"),
    (["--strategy=one_device", "--virtual_devices=2"], 1, "--virtual_devices goes with --strategy=mirrored"),
    (["--checkpoint_steps=-1"], 1, "--checkpoint_steps must be at least 0"),
    (["--max_checkpoints=0"], 1, "--max_checkpoints must be at least 1"),
    (["--seed=-1"], 1, "--seed must be at least 0"),
    (["--learning_rate=nan"], 1, "--learning_rate must be above 0"),
    (["--batch_size=0"], 1, "--batch_size must be at least 1"),
    (["--mode=sing"], 1, "mode"),
    (["--tflite_int8"], 1, "--tflite_int8 goes with --export_format=tflite only"),
]


@pytest.mark.parametrize(("flags", "code", "sentence"), BAD_INPUT, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_sentence_and_leaves_nothing(flags, code, sentence, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["main.py", *(flag.replace("RUN", str(run[0] / "model")) for flag in flags)]) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert sentence in errors[0]
    assert not os.listdir(tmp_path)


def folder(root):
    """A folder dataset of 16x16 images, two of each class in each split."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                image = tf.io.encode_png(np.full((16, 16, 3), 100 * number, np.uint8))
                tf.io.write_file(str(root / split / name / f"{number}.png"), image)
    return root


def png(height, width):
    return tf.io.encode_png(np.zeros((height, width, 3), np.uint8)).numpy()


# path below a good folder dataset, its contents or None to remove it, more flags, exit code, a part of the sentence
BAD_FOLDERS = [
    ("train/cat/2.png", b"not an image", [], 2, "2.png cannot be decoded as an image; remove or replace it"),
    ("train/cat/2.png", png(16, 16)[:40], [], 2, "2.png cannot be decoded as an image"),
    ("train/cat/2.png", b"", [], 2, "2.png cannot be decoded as an image"),
    ("train/cat/2.png", png(16, 20), [], 2, "2.png has 16x20 pixels, others 16x16; give --image_size to resize all"),
    ("test/cat/2.png", png(20, 16), [], 2, "2.png has 20x16 pixels, others 16x16"),
    ("test/cow/0.png", png(16, 16), [], 2, "cow is a class that the train folder does not have; remove or add it"),
    ("train/cow/0.txt", b"no image", [], 2, "train/cow holds no image; put some there, or remove it"),
    ("train", None, [], 2, "one is missing"),
    ("test", None, [], 2, "one is missing"),
    ("train/cat/2.png", b"not an image", ["--image_size=16"], 2, "cannot be read"),
    ("train/cat/2.png/0.png", png(16, 16), ["--image_size=16"], 2, "2.png is not a file; remove or replace it"),
]


@pytest.mark.parametrize(
    ("path", "contents", "flags", "code", "sentence"), BAD_FOLDERS, ids=lambda value: str(value)[:40]
)
def test_a_bad_folder_is_one_sentence_and_leaves_nothing(path, contents, flags, code, sentence, tmp_path, capsys):
    bad = folder(tmp_path / "images") / path
    if contents is None:
        shutil.rmtree(bad)
    else:
        bad.parent.mkdir(parents=True, exist_ok=True)
        bad.write_bytes(contents)
    (tmp_path / "link").symlink_to(tmp_path / "linked")
    (tmp_path / "linked").mkdir()
    for place in ("model", "link"):
        directories = [f"--dataset=folder:{tmp_path}/images", f"--model_dir={tmp_path}/{place}"]
        assert main.main(["main.py", *directories, "--validation_split=0", "--epochs=1", *flags]) == code
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "linked").iterdir())


def test_a_test_image_that_cannot_be_decoded_is_one_sentence_and_keeps_what_was_trained(tmp_path, capsys):
    bad = folder(tmp_path / "images") / "test" / "cat" / "2.png"
    bad.write_bytes(b"not an image")
    arguments = ["main.py", f"--dataset=folder:{tmp_path}/images", f"--model_dir={tmp_path}/model", "--image_size=16"]
    arguments += ["--validation_split=0", "--epochs=1"]
    assert main.main(arguments) == 2
    assert "cannot be read (Unknown image file format" in capsys.readouterr().err
    bad.unlink()
    assert main.main([*arguments, "--resume"]) == 0
    assert json.loads((tmp_path / "model" / "result.json").read_text())["steps"] == 1


# TF_CONFIG, a part of the sentence
BAD_CLUSTERS = [
    ("{", "TF_CONFIG={ is wrong; it must look like"),
    ("[]", "is wrong"),
    ('{"cluster": {"worker": ["a:1"]}}', "is wrong"),
    ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "is wrong"),
    ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0.5}}', "is wrong"),
    ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}', "is wrong"),
    ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "is wrong"),
    ('{"cluster": {"worker": ["a:"]}, "task": {"type": "worker", "index": 0}}', "is wrong"),
    ('{"cluster": {"worker": ["a:port"]}, "task": {"type": "worker", "index": 0}}', "is wrong"),
    ('{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}', "is wrong"),
    ('{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}', "is wrong"),
    ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "is wrong"),
]


@pytest.mark.parametrize(("cluster", "sentence"), BAD_CLUSTERS)
def test_a_bad_cluster_is_one_sentence(cluster, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", cluster)
    assert main.main(["main.py", "--strategy=multi_worker", f"--model_dir={tmp_path}/model"]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint_before(run, tmp_path, capsys, monkeypatch):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    (tmp_path / "model" / "flags.txt").write_text(
        (run[0] / "model" / "flags.txt")
        .read_text()
        .replace("--epochs=2", "--epochs=3")
        .replace("--deterministic=True\n", "")
    )
    before = {path.name: path.read_bytes() for path in (tmp_path / "model" / "checkpoints").iterdir()}
    crop = examples.ArrayExamples.training_batches

    def poisoned(*arguments):
        return crop(*arguments).map(lambda images, labels: (images * np.nan, labels))

    monkeypatch.setattr(examples.ArrayExamples, "training_batches", poisoned)
    arguments = [f"--flagfile={tmp_path}/model/flags.txt", f"--model_dir={tmp_path}/model", "--resume"]
    assert main.main(["main.py", *arguments]) == 5
    assert "the loss is nan after step 43; train anew with a lower --learning_rate" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "model" / "checkpoints").iterdir()} == before


def test_a_last_step_that_diverges_is_found_before_it_is_saved(tmp_path, capsys):
    flags = [*SMALL, "--method=dense", "--epochs=1", "--batch_size=2000", "--learning_rate=1e38"]
    assert main.main(["main.py", *flags, f"--model_dir={tmp_path}/model"]) == 5
    assert "is not finite after step 1; train anew with a lower --learning_rate" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "model" / "checkpoints").iterdir()] == ["step-0000000000.npz"]


@pytest.mark.parametrize("first_epoch", [False, True])
def test_lost_checkpoints_are_an_error_and_no_new_beginning(first_epoch, run, tmp_path, capsys):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "checkpoints")
    if first_epoch:  # leaves neither of these
        for name in ("best.keras", "metrics.csv", "result.json"):
            (tmp_path / "model" / name).unlink()
    arguments = [f"--flagfile={tmp_path}/model/flags.txt", f"--model_dir={tmp_path}/model", "--resume"]
    assert main.main(["main.py", *arguments]) == 3
    assert "has lost all of its checkpoints" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(run, tmp_path, capsys):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    flags = (run[0] / "model" / "flags.txt").read_text()
    (tmp_path / "model" / "flags.txt").write_text(flags.replace("--width_factor=0.25", "--width_factor=0.5"))
    arguments = [f"--flagfile={tmp_path}/model/flags.txt", f"--model_dir={tmp_path}/model", "--resume"]
    assert main.main(["main.py", *arguments]) == 3
    assert "the newest checkpoint is of another network" in capsys.readouterr().err


def test_a_run_continues_on_another_number_of_devices(tmp_path):
    flags = [*SMALL, f"--model_dir={tmp_path}/model", "--checkpoint_steps=5"]
    assert main.main(["main.py", *flags]) == 0
    checkpoints = sorted((tmp_path / "model" / "checkpoints").iterdir())
    assert checkpoints[-2].name == "step-0000000040.npz"  # inside the second epoch
    checkpoints[-1].unlink()
    assert main.main(["main.py", *flags, "--resume", "--strategy=mirrored", "--virtual_devices=2"]) == 0
    assert json.loads((tmp_path / "model" / "result.json").read_text())["steps"] == 42


def test_a_second_run_in_a_directory_refuses(run, capsys):
    model_dir = run[0] / "model"
    arguments = ["main.py", f"--flagfile={model_dir}/flags.txt", f"--model_dir={model_dir}", "--resume"]
    descriptor = os.open(model_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert main.main(arguments) == 3
    finally:
        os.close(descriptor)
    assert "is in use by another run; give another directory" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_between_two_steps(number, code, tmp_path):
    arguments = [*SMALL, "--epochs=500", f"--model_dir={tmp_path}/model", "--deterministic"]
    process = subprocess.Popen([sys.executable, str(ROOT / "main.py"), *arguments], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    assert process.returncode == code
    (checkpoint, *_) = sorted((tmp_path / "model" / "checkpoints").glob("*.npz"), reverse=True)
    assert int(checkpoint.stem[len("step-") :]) >= 2 * 21


def test_a_signal_during_validation_saves_the_epoch(tmp_path, monkeypatch):
    arguments = ["main.py", *SMALL, f"--model_dir={tmp_path}/model"]
    with monkeypatch.context() as patch:
        terminate = staticmethod(lambda logs=None: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(MetricsFile, "on_test_begin", terminate)
        assert main.main(arguments) == 143
    checkpoints = sorted(path.name for path in (tmp_path / "model" / "checkpoints").iterdir())
    assert checkpoints[-1] == "step-0000000021.npz"
    assert main.main([*arguments, "--resume"]) == 0
    assert json.loads((tmp_path / "model" / "result.json").read_text())["steps"] == 42


def test_the_second_signal_ends_at_once():
    script = """
import os, signal, sys
sys.path.insert(0, "iterand_tf")  # the module alone, without TensorFlow
from interruption import deferred_signals
with deferred_signals() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    print(request.number, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGINT, f"{signal.SIGTERM.value}\n")
    assert "once more ends at once" in result.stderr


def test_files_that_cannot_be_written_leave_the_earlier_ones(run, tmp_path):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "tensorboard")
    *_, last = sorted((tmp_path / "model" / "checkpoints").iterdir())
    last.unlink()  # so that the second epoch is done again
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.suffix in (".npz", ".keras")}
    assert len(before) >= 2
    arguments = [str(ROOT / "main.py"), f"--flagfile={tmp_path}/model/flags.txt", f"--model_dir={tmp_path}/model",
                 "--resume"]  # fmt: skip
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.returncode == 3, result.stderr
    assert result.stderr.splitlines()[-1].endswith("make room and continue with --resume.")
    assert {path: path.read_bytes() for path in before} == before
    assert not list((tmp_path / "model").rglob("*tmp*"))
    done(*arguments[1:])


def test_a_full_disk_is_told_from_full_memory_in_errors_of_tensorflow(tmp_path):
    place = model_dir.ModelDir(tmp_path)
    full_disk = tf.errors.ResourceExhaustedError(None, None, "events.out; No space left on device")
    with pytest.raises(ModelDirError, match="No space left on device"), place.being_written():
        raise full_disk
    with pytest.raises(tf.errors.ResourceExhaustedError), place.being_written():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_a_full_disk_at_the_start_and_at_the_end_is_one_sentence(run, tmp_path, capsys, monkeypatch):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    (tmp_path / "model" / "result.json").unlink()
    arguments = ["main.py", f"--flagfile={tmp_path}/model/flags.txt", f"--model_dir={tmp_path}/model", "--resume"]

    def full(name, write=model_dir.write_atomically):
        def write_unless_full(path, text):
            if path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, text)

        monkeypatch.setattr(model_dir, "write_atomically", write_unless_full)

    for name in ("flags.txt", "result.json"):
        full(name)
        assert main.main(arguments) == 3
        assert "could not be written (No space left on device); make room and continue" in capsys.readouterr().err
    assert not (tmp_path / "model" / "result.json").exists()
    full("nothing")
    assert main.main(arguments) == 0
    assert (tmp_path / "model" / "result.json").exists()


# a file of a run, and the flags that read it when it is damaged
DAMAGED_FILES = [
    ("best.keras", ["--mode=evaluate"]),
    ("metrics.csv", ["--flagfile=FLAGS", "--resume"]),
    ("flags.txt", ["--resume"]),
    ("result.json", ["--mode=export", "--export_dir=EXPORT"]),
]


@pytest.mark.parametrize(("name", "flags"), DAMAGED_FILES)
def test_a_damaged_file_of_a_run_is_one_sentence(name, flags, run, tmp_path, capsys):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"\xff\xfe")
    places = {"FLAGS": f"{run[0]}/model/flags.txt", "EXPORT": f"{tmp_path}/export"}
    for word, place in places.items():
        flags = [flag.replace(word, place) for flag in flags]
    assert main.main(["main.py", *flags, f"--model_dir={tmp_path}/model"]) == 3
    assert f"{name} cannot be read and may be damaged; restore or remove it" in capsys.readouterr().err


def test_a_flagfile_that_is_no_text_is_one_sentence(tmp_path, capsys):
    (tmp_path / "flags").write_bytes(b"\xff\xfe")
    assert main.main(["main.py", f"--flagfile={tmp_path}/flags"]) == 1
    assert capsys.readouterr().err.startswith("error: a flagfile is not a text of flags")


def test_a_run_that_was_killed_at_its_very_start_starts_again(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".flags.txt.tmp").write_text("--data")
    assert main.main(["main.py", *SMALL, "--epochs=0", f"--model_dir={tmp_path}/model", "--resume"]) == 0
    assert not (tmp_path / "model" / ".flags.txt.tmp").exists()


def test_a_finished_run_that_is_resumed_keeps_what_its_export_has_recorded(run, tmp_path):
    shutil.copytree(run[0] / "model", tmp_path / "model")
    before = json.loads((tmp_path / "model" / "result.json").read_text())
    arguments = [f"--flagfile={tmp_path}/model/flags.txt", "--export_dir=", f"--model_dir={tmp_path}/model", "--resume"]
    assert main.main(["main.py", *arguments]) == 0
    assert json.loads((tmp_path / "model" / "result.json").read_text()) == before


def test_an_error_has_its_exit_code_and_no_traceback():
    result = command("--sparsity=1")
    assert result.returncode == 1
    assert result.stderr == "error: --sparsity must be at least 0 and below 1, not 1.0.\n"


def test_help_names_every_flag_with_its_help():
    printed = done("--help").stdout
    for fields in option_fields().values():
        for field in fields:
            assert f"--{field.name}" in printed.replace("--[no]", "--")
