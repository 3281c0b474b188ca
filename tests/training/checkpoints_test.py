"""Checkpoints: the newest that can be read, older ones in its place, and never a silent new beginning."""

import pathlib

import numpy as np
import pytest

from iterand_tf.errors import ModelDirError
from iterand_tf.training import checkpoints as checkpoints_module
from iterand_tf.training.checkpoints import Checkpoints


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of the steps 1 to 4, three kept."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", max_to_keep=3)
    for step in range(1, 5):
        checkpoints.save(step, {"epoch": step}, {"model/kernel": np.full((50, 20), step, np.float32)})
    return checkpoints


def test_keeps_the_newest(saved):
    assert [file.name for file in saved.files()] == [f"step-000000000{step}.npz" for step in (4, 3, 2)]
    progress, arrays = saved.newest()
    assert progress == {"epoch": 4}
    np.testing.assert_array_equal(arrays["model/kernel"], np.full((50, 20), 4, np.float32))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, pathlib.Path.unlink])
def test_falls_back_to_the_one_before(saved, damage, capsys):
    newest = saved.files()[0]
    damage(newest)
    assert saved.newest()[0] == {"epoch": 3}
    warned = capsys.readouterr().err
    assert ("trying the checkpoint before it" in warned) == newest.exists()


def test_a_state_saved_after_a_fallback_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", max_to_keep=1)
    checkpoints.save(9, {"epoch": 9}, {})
    truncate(checkpoints.files()[0])
    checkpoints.save(5, {"epoch": 5}, {})
    assert checkpoints.newest() == ({"epoch": 5}, {})


def test_a_damaged_one_does_not_count_among_those_that_are_kept(saved):
    truncate(saved.files()[1])
    truncate(saved.files()[0])
    assert saved.newest()[0] == {"epoch": 2}
    for step in (3, 5):
        saved.save(step, {"epoch": step}, {})
    assert [file.name for file in saved.files()] == [f"step-000000000{step}.npz" for step in (5, 3, 2)]


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_with_none_left_it_is_an_error(saved, damage):
    for path in saved.files():
        damage(path)
    with pytest.raises(ModelDirError, match=r"no checkpoint in .* can be read"):
        saved.newest()


def test_nothing_saved_yet(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints").newest() is None


def test_a_full_disk_leaves_the_earlier_files(saved, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = {file.name: file.read_bytes() for file in saved.files()}
    monkeypatch.setattr(checkpoints_module.np, "savez", full)
    with pytest.raises(OSError, match="No space left on device"):
        saved.save(5, {}, {})
    directory = saved.files()[0].parent
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def test_what_a_killed_process_left_is_removed(saved):
    left = saved.files()[0].with_name(".step-0000000005.npz.tmp")
    left.write_bytes(b"half")
    saved.save(6, {}, {})
    assert not left.exists()
