"""A run and its dataset: what changes afterwards is found, and nothing of the user's is lost."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command_line import SMALL, here, result_of

from iterand_tf.training.loop import TrainingLoop


def make_folder(root, parts=("train", "test"), count=4):
    """Black cats and white dogs."""
    for part in parts:
        for name, value in (("cat", 0), ("dog", 255)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                image = tf.io.encode_png(np.full((8, 8, 3), value, np.uint8))
                tf.io.write_file(str(root / part / name / f"{number}.png"), image)


def train(*flags):
    """Trains on the folder `images` of the working directory."""
    network = ["--model=conv2", "--width_factor=0.25", "--batch_normalization", "--method=dense"]
    options = ["--batch_size=4", "--epochs=3", "--learning_rate=0.01"]
    return here("--dataset=folder:images", "--model_dir=model", *network, *options, *flags)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A directory with a folder of images and a run on it."""
    directory = tmp_path_factory.mktemp("trained_once")
    make_folder(directory / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert train("--validation_split=0.25") == 0
    assert result_of(directory / "model")["test_accuracy"] == 1
    return directory


@pytest.fixture
def trained(trained_once, tmp_path, monkeypatch):
    """A copy of it, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)


def modes(path):
    """The flags of each way to go on with a run."""
    return {
        "evaluate": ["--mode=evaluate", f"--model_dir={path}/model"],
        "export": ["--mode=export", f"--model_dir={path}/model", f"--export_dir={path}/export"],
        "resume": [f"--flagfile={path}/model/flags.txt", f"--model_dir={path}/model", "--resume"],
    }


def rename_a_class(images):
    for part in ("train", "test"):
        (images / part / "cat").rename(images / part / "zebra")


def add_an_image(images):
    shutil.copy(images / "train" / "cat" / "0.png", images / "train" / "cat" / "9.png")


def rename_an_image(images):
    (images / "test" / "cat" / "0.png").rename(images / "test" / "cat" / "00.png")


@pytest.mark.parametrize(
    ("change", "mode", "sentence"),
    [
        (rename_a_class, "evaluate", "zebra is a class that the run was not trained on"),
        (rename_a_class, "export", "zebra is a class that the run was not trained on"),
        (rename_a_class, "resume", "its classes are dog, zebra instead of cat, dog"),
        (add_an_image, "resume", "its train part has 9 examples instead of 8"),
        (rename_an_image, "evaluate", "the examples of its test part have other names"),
        (rename_an_image, "resume", "the examples of its test part have other names"),
    ],
)
def test_a_dataset_that_has_changed_is_refused(change, mode, sentence, trained, capsys):
    change(trained / "images")
    assert here(*modes(trained)[mode]) == 2
    assert sentence in capsys.readouterr().err
    assert not (trained / "export").exists()


def test_evaluate_and_export_need_the_test_images_alone(trained, capsys):
    expected = result_of(trained / "model")["test_accuracy"]
    shutil.rmtree(trained / "images" / "train")
    assert here(*modes(trained)["evaluate"]) == 0
    assert f"test_accuracy: {expected}\n" in capsys.readouterr().out
    assert here(*modes(trained)["export"]) == 0
    assert (trained / "export" / "1" / "assets" / "labels.txt").read_text() == "cat\ndog\n"


def test_the_part_that_is_held_out_stays_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "images", parts=("",), count=10)
    assert train() == 0
    assert "0.2 of each class, 4 images, are held out for it" in capsys.readouterr().out
    record = json.loads((tmp_path / "model" / "dataset.json").read_text())
    assert record["notes"] == ["the dataset brings no test part: 0.2 of each class, 4 images, are held out for it"]
    assert here(*modes(tmp_path)["evaluate"]) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert float(lines["test_accuracy"]) == result_of(tmp_path / "model")["test_accuracy"]
    assert lines["num_test_examples"] == "4"
    assert here(*modes(tmp_path)["export"]) == 0


def test_a_file_of_the_users_stays_when_the_first_epoch_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "images")
    (tmp_path / "images" / "train" / "cat" / "2.png").write_bytes(b"not an image")
    fit = TrainingLoop._fit

    def fit_beside_a_file(job, *arguments):
        (job.model_dir.path / "notes.txt").write_text("mine")
        return fit(job, *arguments)

    monkeypatch.setattr(TrainingLoop, "_fit", fit_beside_a_file)
    assert train("--image_size=8", "--validation_split=0") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["notes.txt"]


def test_a_first_step_that_fails_in_any_way_does_not_block_the_next_try(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_fit", fail)
        with pytest.raises(RuntimeError, match="a fault"):
            here(*SMALL, f"--model_dir={tmp_path}/model")
    assert not (tmp_path / "model").exists()


def test_randaugment_trains_on_grey_images(tmp_path):
    flags = ["--augmentation=randaugment", "--max_train_examples=64", "--epochs=1"]
    assert here(*SMALL, *flags, f"--model_dir={tmp_path}/model") == 0


def test_evaluate_does_not_look_at_the_export_dir_of_the_run(model_dir):
    flags = (model_dir / "flags.txt").read_text().splitlines()
    flags = ["--export_dir=/proc/old" if "--export_dir" in flag else flag for flag in flags]
    (model_dir / "flags.txt").write_text("\n".join(flags))
    assert here("--mode=evaluate", f"--model_dir={model_dir}") == 0


def test_importing_the_library_suffices_to_load_what_a_run_has_written(trained_run):
    script = (
        "import sys, iterand_tf, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert not model.compiled\n"
        "print(iterand_tf.sparsity_report(model).total.num_kept)\n"
    )
    command = [sys.executable, "-c", script, str(trained_run.model_dir / "best.keras")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) == result_of(trained_run.model_dir)["num_kept"]


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--model_dir=gs://bucket/run"], 3, "--model_dir=gs://bucket/run is not in the local file system"),
        (["--mode=evaluate", "--model_dir=s3://bucket/run"], 3, "is not in the local file system"),
        (["--export_dir=gs://bucket/export"], 4, "export_dir=gs://bucket/export is not in the local file system"),
        (["--dataset=folder:gs://bucket/images"], 2, "is not in the local file system; give a local folder"),
        (["--dataset=cifar10", "--data_dir=file:///nowhere"], 2, "--data_dir=file:///nowhere does not exist"),
    ],
)
def test_places_elsewhere_are_refused(flags, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert here(*SMALL, *flags) == code
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_its_test_part_a_run_is_not_evaluated_on_another(trained, capsys):
    (trained / "images" / "test").rename(trained / "elsewhere")
    for mode in ("evaluate", "export", "resume"):
        assert here(*modes(trained)[mode]) == 2
        assert "its test part is gone" in capsys.readouterr().err
    (trained / "elsewhere").rename(trained / "images" / "val")
    assert here(*modes(trained)["evaluate"]) == 2
    assert "the examples of its test part have other names" in capsys.readouterr().err


def test_a_damaged_record_of_the_dataset_is_one_sentence(trained, capsys):
    (trained / "model" / "dataset.json").write_text("null")
    assert here(*modes(trained)["evaluate"]) == 3
    assert "dataset.json cannot be read and may be damaged" in capsys.readouterr().err
