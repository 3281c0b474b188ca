"""Errors of the command line: each is one sentence and an exit code, and leaves what was there."""

import errno
import importlib.util
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from command_line import SMALL, checkpoint_names, command, here, result_of, resume
from full_disk import files_of_at_most

from iterand_tf.data import examples
from iterand_tf.training import model_dir as model_dir_module
from iterand_tf.training.epoch_figures import Throughput
from iterand_tf.training.saving import SaveState


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert here("--epochs=0") == 1
    assert capsys.readouterr().err == (
        'error: sklearn.datasets is missing; install "iterand_tf[training,experiments]".\n'
    )


def test_an_error_has_its_exit_code_and_no_traceback():
    result = command("--sparsity=1")
    assert result.returncode == 1
    assert result.stderr == "error: --sparsity must be at least 0 and below 1, not 1.0.\n"


# A row has flags, the exit code and a part of the sentence. RUN stands for the directory of a run.
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
    (["--mask=2"], 1, "--mask must be per_kernel, global or N:M"),
    (["--mask=2:4"], 1, "mask=2:4 needs kernels whose inputs 4 divides, and stage1_conv1 has 9"),
    (["--mask=global", "--head_sparsity=0.1"], 1, "--head_sparsity does not go with --mask=global"),
    (
        ["--method=magnitude_pruning", "--binarize"],
        1,
        "--binarize only works with frozen kernels, not with --method=magnitude_pruning",
    ),
    (
        ["--min_per_channel=10"],
        1,
        "min_per_channel=10 keeps more than a sparsity of 0.5 leaves of the kernel of stage1",
    ),
    (
        ["--initial_model=a.keras"],
        1,
        "--initial_model goes with magnitude_pruning and random_pruning, not with iterand",
    ),
    (["--method=magnitude_pruning", "--initial_model=a.keras"], 1, "a.keras holds no Keras model that can be read"),
    (
        ["--method=magnitude_pruning", "--initial_model=RUN/best.keras", "--dataset=digits"],
        1,
        "the model has Subnet layers already",
    ),
    (["--sparsity_schedule=polynomial", "--initial_sparsity=0.6"], 1, "a schedule never lowers the sparsity"),
    (
        ["--sparsity_schedule=polynomial", "--sparsity_begin_step=900"],
        1,
        "leave no step to prune at in the first three",
    ),
    (["--sparsity_schedule=polynomial", "--sparsity_end_step=150"], 1, "--sparsity_end_step=150 must be at most 330"),
    (
        ["--sparsity_schedule=polynomial", "--head_sparsity=0.1"],
        1,
        "one sparsity for all layers; leave --head_sparsity",
    ),
    (
        ["--sparsity_schedule=polynomial", "--method=dense"],
        1,
        "--sparsity_schedule=polynomial does not go with --method=dense",
    ),
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
    (["--mode=export", "--model_dir=RUN", "--export_dir="], 4, "export_dir is empty; give the directory"),
    (["--export_dir=/proc/export"], 4, "cannot be written"),
    (["--export_format=packed,zip"], 1, "--export_format must be one or several of packed,dense,tflite,onnx"),
    (["--export_format=dense", "--export_kernel_dtype=float16"], 1, "goes with --export_format=packed only"),
    (["--strategy=mirrored"], 1, "needs several GPUs; on a CPU give virtual_devices=2 to try it."),
    (["--strategy=multi_worker"], 1, "the strategy multi_worker needs TF_CONFIG or Slurm"),
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
    (["--export_dir=e", "--export_format=onnx", "--precision=mixed_bfloat16"], 1, "onnx has no bfloat16; train with"),
    (["--grid=seed=1,2"], 1, "--grid only works with --mode=sweep."),
    (["--sweep_dry_run", "--mode=evaluate", "--model_dir=RUN"], 1, "--sweep_dry_run only works with --mode=sweep"),
    (["--tflite_int8"], 1, "--tflite_int8 goes with --export_format=tflite only"),
]


@pytest.mark.parametrize(("flags", "code", "sentence"), BAD_INPUT, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    flags, code, sentence, trained_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert here(*(flag.replace("RUN", str(trained_run.model_dir)) for flag in flags)) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert sentence in errors[0]
    assert not list(tmp_path.iterdir())


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


# A row has a path below a good folder dataset, its contents or None to remove it, more flags, the exit code and a part
# of the sentence.
BAD_FOLDERS = [
    ("train/cat/2.png", b"not an image", [], 2, "2.png cannot be decoded as an image; remove or replace it"),
    ("train/cat/2.png", png(16, 16)[:40], [], 2, "2.png cannot be decoded as an image"),
    ("train/cat/2.png", b"", [], 2, "2.png cannot be decoded as an image"),
    ("train/cat/2.png", png(16, 20), [], 2, "2.png has 16x20 pixels, others 16x16; give --image_size to resize all"),
    ("test/cat/2.png", png(20, 16), [], 2, "2.png has 20x16 pixels, others 16x16"),
    ("test/cow/0.png", png(16, 16), [], 2, "cow is a class that the train folder does not have; remove or add it"),
    ("train/cow/0.txt", b"no image", [], 2, "train/cow holds no image; put some there, or remove it"),
    ("train", None, [], 2, "one is missing"),
    ("train/cat/2.png", b"not an image", ["--image_size=16"], 2, "cannot be read"),
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
        assert here(*SMALL, *directories, "--validation_split=0", "--epochs=1", *flags) == code
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "linked").iterdir())


def test_a_test_image_that_cannot_be_decoded_is_one_sentence_and_keeps_what_was_trained(tmp_path, capsys):
    bad = folder(tmp_path / "images") / "test" / "cat" / "2.png"
    bad.write_bytes(b"not an image")
    arguments = [*SMALL, f"--dataset=folder:{tmp_path}/images", f"--model_dir={tmp_path}/model", "--image_size=16"]
    arguments += ["--validation_split=0", "--epochs=1"]
    assert here(*arguments) == 2
    assert "cannot be read (Unknown image file format" in capsys.readouterr().err
    tf.io.write_file(str(bad), tf.io.encode_png(np.zeros((16, 16, 3), np.uint8)))
    assert here(*arguments, "--resume") == 0
    assert result_of(tmp_path / "model")["steps"] == 1


# A row has TF_CONFIG and a part of the sentence.
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
    assert here("--strategy=multi_worker", f"--model_dir={tmp_path}/model") == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint_before(model_dir, capsys, monkeypatch):
    flags = (model_dir / "flags.txt").read_text()
    (model_dir / "flags.txt").write_text(flags.replace("--epochs=2", "--epochs=3"))
    before = {path: path.read_bytes() for path in (model_dir / "checkpoints").iterdir()}
    crop = examples.ArrayExamples.training_batches

    def poisoned(*arguments):
        return crop(*arguments).map(lambda images, labels: (images * np.nan, labels))

    monkeypatch.setattr(examples.ArrayExamples, "training_batches", poisoned)
    assert resume(model_dir) == 5
    assert "the loss is nan after step 43; train anew with a lower --learning_rate" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (model_dir / "checkpoints").iterdir()} == before


def test_a_last_step_that_diverges_is_found_before_it_is_saved(tmp_path, capsys):
    flags = [*SMALL, "--method=dense", "--epochs=1", "--batch_size=2000", "--learning_rate=1e38"]
    assert here(*flags, f"--model_dir={tmp_path}/model") == 5
    assert "is not finite after step 1; train anew with a lower --learning_rate" in capsys.readouterr().err
    assert checkpoint_names(tmp_path / "model") == ["step-0000000000.npz"]


def test_a_converter_that_is_missing_is_found_before_training(tmp_path, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tf2onnx" else find_spec(name))
    flags = [*SMALL, f"--model_dir={tmp_path}/model", f"--export_dir={tmp_path}/export", "--export_format=onnx"]
    assert here(*flags) == 4
    assert "the format onnx needs tf2onnx; run pip install" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_files_that_cannot_be_written_leave_the_earlier_ones(model_dir, capsys, monkeypatch):
    shutil.rmtree(model_dir / "tensorboard")
    # Without the last checkpoint the end of the second epoch is done again.
    (model_dir / "checkpoints" / checkpoint_names(model_dir)[-1]).unlink()
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.suffix in (".npz", ".keras")}
    assert len(before) == 2
    save = SaveState.on_epoch_end

    def on_a_full_disk(*arguments):
        with files_of_at_most(100_000):
            save(*arguments)

    # From here on: in tests what XLA compiles is written too.
    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_end", on_a_full_disk)
        assert resume(model_dir) == 3
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith("make room and continue with --resume.")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(model_dir.rglob("*tmp*"))
    assert resume(model_dir) == 0


def test_a_full_disk_is_told_from_full_memory_in_errors_of_tensorflow(tmp_path, capsys, monkeypatch):
    flags = [*SMALL, "--epochs=1", "--max_train_examples=64"]
    for place, name, message, code, sentence in (
        (tf.summary, "scalar", "No space left on device", 3, "could not be written"),
        (Throughput, "on_train_batch_end", "OOM when allocating tensor", 1, "the memory does not suffice"),
    ):

        def fail(callback, number, logs=None, message=message):
            raise tf.errors.ResourceExhaustedError(None, None, message)

        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            assert here(*flags, f"--model_dir={tmp_path}/{code}") == code
        assert f"{sentence} ({message})" in capsys.readouterr().err


def test_a_full_disk_at_the_start_and_at_the_end_is_one_sentence(model_dir, capsys, monkeypatch):
    (model_dir / "result.json").unlink()
    write = model_dir_module.write_atomically
    for name in ("flags.txt", "result.json"):

        def write_unless_full(path, text, full=name):
            if path.name == full:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, text)

        monkeypatch.setattr(model_dir_module, "write_atomically", write_unless_full)
        assert resume(model_dir) == 3
        assert "could not be written (No space left on device); make room and continue" in capsys.readouterr().err
    assert not (model_dir / "result.json").exists()
    monkeypatch.setattr(model_dir_module, "write_atomically", write)
    assert resume(model_dir) == 0
    assert (model_dir / "result.json").exists()


# A row has a file of a run, and the flags that read it when it is damaged.
DAMAGED_FILES = [
    ("best.keras", ["--mode=evaluate"]),
    ("metrics.csv", ["--flagfile=FLAGS", "--resume"]),
    ("flags.txt", ["--resume"]),
    ("result.json", ["--mode=export", "--export_dir=EXPORT"]),
]


@pytest.mark.parametrize(("name", "flags"), DAMAGED_FILES)
def test_a_damaged_file_of_a_run_is_one_sentence(name, flags, trained_run, model_dir, tmp_path, capsys):
    (model_dir / name).write_bytes(b"\xff\xfe")
    places = {"FLAGS": f"{trained_run.model_dir}/flags.txt", "EXPORT": f"{tmp_path}/export"}
    for word, place in places.items():
        flags = [flag.replace(word, place) for flag in flags]
    assert here(*flags, f"--model_dir={model_dir}") == 3
    assert f"{name} cannot be read and may be damaged; restore or remove it" in capsys.readouterr().err


def test_a_flagfile_that_is_no_text_is_one_sentence(tmp_path, capsys):
    (tmp_path / "flags").write_bytes(b"\xff\xfe")
    assert here(f"--flagfile={tmp_path}/flags") == 1
    assert capsys.readouterr().err.startswith("error: a flagfile is not a text of flags")
