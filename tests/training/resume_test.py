"""A run that is killed and resumed ends as one that was left alone, and says where it continues."""

import random

import pytest
from command_line import here
from stress_resume import FLAGS, stress


def finish_here(model_dir, flags):
    assert here(*FLAGS, *flags, f"--model_dir={model_dir}") == 0


def test_killed_and_resumed_to_the_same_bytes(tmp_path):
    random.seed(1)
    assert stress(tmp_path, kills=2, epochs=6, finish=finish_here) >= 1


# The fast tests kill and resume one device, and two workers in strategies/, to the same bytes.
@pytest.mark.slow
def test_killed_and_resumed_on_two_devices(tmp_path):
    random.seed(1)
    flags = ["--strategy=mirrored", "--virtual_devices=2", "--checkpoint_steps=4"]
    assert stress(tmp_path, kills=1, epochs=4, more_flags=flags, finish=finish_here) == 1


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    random.seed(0)
    assert stress(tmp_path, kills=20, epochs=100) >= 15
