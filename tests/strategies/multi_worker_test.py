"""Two workers on 127.0.0.1 through main.py: the network of one process, and what happens when one is killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT, checkpoint_names, here

from tools import local_workers

PATIENCE = 240
# An epoch has ten steps.
FLAGS = [
    "--dataset=digits",
    "--max_train_examples=640",
    "--model=conv2",
    "--width_factor=0.25",
    "--batch_normalization",
    "--synchronized_batch_normalization",
    "--batch_size=64",
    "--learning_rate=0.002",
    "--rerandomization_period=9",
    "--checkpoint_steps=6",
    "--deterministic",
]


def arguments(model_dir, *flags):
    return [str(ROOT / "main.py"), *FLAGS, *flags, f"--model_dir={model_dir}"]


# It is main.py, and leaves the masks and moving statistics that its worker has after each epoch beside the model_dir.
WITH_ARRAYS = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np, tensorflow
from iterand_tf import cli, layers
from iterand_tf.training.saving import SaveState
end_epoch = SaveState.on_epoch_end
def save_arrays_and_end_epoch(callback, epoch, logs=None):
    masks = [np.asarray(layer.kernel_mask) for layer in layers.subnet_layers(callback.model)]
    variables = callback.model.non_trainable_variables
    statistics = [np.asarray(each) for each in variables if each.name.startswith("moving_")]
    directory = pathlib.Path(sys.argv[-1].removeprefix("--model_dir=")).parent
    worker = "chief" if callback._writes else "other"
    for kind, arrays in (("masks", masks), ("statistics", statistics)):
        np.savez(directory / f"{{kind}}_{{worker}}_{{epoch + 1}}.npz", *arrays)
    end_epoch(callback, epoch, logs)
SaveState.on_epoch_end = save_arrays_and_end_epoch
sys.exit(cli.main(sys.argv))
"""


def start_workers(model_dir, *flags):
    script = model_dir.with_name("with_arrays.py")
    script.write_text(WITH_ARRAYS)
    return local_workers.start(
        2,
        [str(script), *arguments(model_dir, "--strategy=multi_worker", *flags)[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_each(commands, of):
    """Starts the first of `of` workers, each with arguments of its own."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in local_workers._free_ports(of)]}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, command in enumerate(commands)
    ]


def ended(workers):
    """Exit codes and standard errors, after all have ended."""
    errors = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    return [worker.returncode for worker in workers], errors


def wait_for_checkpoint(workers, model_dir, step):
    """Returns as soon as it is there, which must be before a worker ends."""
    while not (model_dir / "checkpoints" / f"step-{step:010}.npz").exists():
        if any(worker.poll() is not None for worker in workers):
            for worker in workers:
                worker.kill()
            raise AssertionError(ended(workers))
        time.sleep(0.01)


def state(model_dir, name=None):
    """What a checkpoint holds; without a name, the newest one."""
    with np.load(model_dir / "checkpoints" / (name or checkpoint_names(model_dir)[-1])) as archive:
        return {name: archive[name] for name in archive.files if name != "progress"}


def losses(model_dir):
    with (model_dir / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three epochs of two workers, left alone."""
    model_dir = tmp_path_factory.mktemp("whole") / "model"
    codes, errors = ended(start_workers(model_dir, "--epochs=3"))
    assert codes == [0, 0], errors
    return model_dir


def test_two_workers_train_the_network_of_one_process(whole, tmp_path):
    assert here(*FLAGS, "--epochs=3", f"--model_dir={tmp_path}/model") == 0
    np.testing.assert_allclose(losses(whole), losses(tmp_path / "model"), rtol=0, atol=1e-5)
    together, alone = state(whole), state(tmp_path / "model")
    kernels = [name for name in alone if name.endswith("/kernel")]
    assert len(kernels) == 5
    for name in kernels:
        np.testing.assert_array_equal(together[name], alone[name])
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in (tmp_path / "model").iterdir()}


def arrays_of_both(model_dir, kind, epoch):
    """Those that the chief and the other worker had after an epoch."""
    for worker in ("chief", "other"):
        with np.load(model_dir.with_name(f"{kind}_{worker}_{epoch}.npz")) as archive:
            yield [archive[name] for name in archive.files]


def test_both_workers_end_with_the_same_masks(whole):
    chief, other = arrays_of_both(whole, "masks", epoch=3)
    assert len(chief) == 5
    for mask, same in zip(chief, other, strict=True):
        np.testing.assert_array_equal(mask, same)


def test_a_worker_that_waits_for_another_obeys_a_signal(tmp_path):
    worker = start_each([arguments(tmp_path / "model")], of=2)[0]
    for line in worker.stdout:
        if line.startswith("waiting for 127.0.0.1:"):
            worker.send_signal(signal.SIGTERM)
            break
    assert worker.wait(timeout=PATIENCE) == -signal.SIGTERM
    assert not (tmp_path / "model").exists()


def test_a_worker_or_chief_that_is_killed_ends_the_other_and_both_resume(whole, tmp_path):
    model_dir = tmp_path / "model"
    for killed, step, flags in ((1, 6, []), (0, 12, ["--resume"])):
        workers = start_workers(model_dir, "--epochs=3", *flags)
        wait_for_checkpoint(workers, model_dir, step)
        workers[killed].send_signal(signal.SIGKILL)
        codes, errors = ended(workers)
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 6)
        assert "error: a worker was lost" in errors[1 - killed]
    codes, errors = ended(start_workers(model_dir, "--epochs=3", "--resume"))
    assert codes == [0, 0], errors
    expected, found = state(whole), state(model_dir)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_workers_with_different_flags_refuse(tmp_path):
    codes, errors = ended(start_each([arguments(tmp_path / "model", f"--seed={seed}") for seed in (1, 2)], of=2))
    assert codes == [1, 1]
    assert errors[0] == errors[1] == "error: the workers were started with different flags; start all with the same.\n"
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def signalled(tmp_path_factory):
    """Two workers whose statistics are not synchronized; after the checkpoint of step 12 one got SIGTERM."""
    model_dir = tmp_path_factory.mktemp("signalled") / "model"
    flags = ["--nosynchronized_batch_normalization", "--epochs=300", "--max_checkpoints=1000"]
    workers = start_workers(model_dir, *flags)
    wait_for_checkpoint(workers, model_dir, 12)
    workers[1].send_signal(signal.SIGTERM)
    codes, errors = ended(workers)
    assert codes == [143, 143], errors
    return model_dir


def test_a_signal_to_one_worker_ends_all_with_the_state_saved(signalled):
    assert checkpoint_names(signalled)[-1] > "step-0000000012.npz"


def test_statistics_that_are_not_synchronized_are_the_chiefs_in_validation(signalled):
    chief, other = arrays_of_both(signalled, "statistics", epoch=1)
    saved = [array for name, array in state(signalled, "step-0000000010.npz").items() if "/moving_" in name]
    # Four layers have a mean and a variance each.
    assert len(saved) == 2 * 4
    for of_chief, of_other, array in zip(chief, other, saved, strict=True):
        np.testing.assert_array_equal(of_chief, of_other)
        np.testing.assert_array_equal(of_other, array)


USERS_SCRIPT = """
import json, sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy as np
from iterand_tf import Rerandomize, SubnetDense
from iterand_tf.strategies import enable_distributed_fit
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).random((200, 8)).astype("float32")
y = (x.sum(1) > 4).astype("int32")
with strategy.scope():
    model = keras.Sequential([SubnetDense(16, activation="relu", seed=1), SubnetDense(2, seed=2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).with_options(options)
enable_distributed_fit(model)
fitted = model.fit(data, epochs=4, verbose=0, validation_data=data, callbacks=[Rerandomize(3, 1.0)])
network = [np.asarray(layer.effective_kernel()).tolist() for layer in model.layers]
with open(sys.argv[1] + str(strategy.cluster_resolver.task_id), "w") as file:
    json.dump({"history": fitted.history, "evaluated": model.evaluate(data, verbose=0), "network": network}, file)
"""


def test_a_users_own_model_fits_on_two_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "users.py").write_text(USERS_SCRIPT)
    command = [str(tmp_path / "users.py"), str(tmp_path / "result")]
    codes, errors = ended(local_workers.start(2, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    assert codes == [0, 0], errors
    first, second = (json.loads((tmp_path / f"result{index}").read_text()) for index in range(2))
    assert first == second
    history = first["history"]
    assert first["evaluated"] == pytest.approx([history["val_loss"][-1], history["val_accuracy"][-1]], abs=1e-6)
    assert min(history["rerandomized_weights"]) > 0
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.slow
def test_two_tasks_of_slurm_train_as_two_workers(whole, tmp_path):
    slurm = {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "2"}
    command = [sys.executable, *arguments(tmp_path / "model", "--epochs=3")]
    workers = [
        subprocess.Popen(
            command,
            env=os.environ | slurm | {"SLURM_PROCID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    codes, errors = ended(workers)
    assert codes == [0, 0], errors
    assert losses(tmp_path / "model") == losses(whole)


def test_the_launcher_says_how_it_is_called(capsys):
    for wrong in ([], ["two", "main.py"], ["0", "main.py"]):
        assert local_workers.main(wrong) == 1
        assert "COUNT SCRIPT" in capsys.readouterr().err
