"""A run that is killed and resumed ends as one that was left alone, and says where it continues."""

import random

import pytest
from stress_resume import stress


def test_killed_and_resumed_to_the_same_bytes(tmp_path):
    random.seed(1)
    assert stress(tmp_path, kills=2, epochs=6) >= 1


def test_killed_and_resumed_on_two_devices(tmp_path):
    random.seed(1)
    assert stress(tmp_path, 1, 4, ["--strategy=mirrored", "--virtual_devices=2", "--checkpoint_steps=4"]) == 1


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    random.seed(0)
    assert stress(tmp_path, kills=20, epochs=100) >= 15
