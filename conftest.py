# ruff: noqa: E402
"""Fixtures shared by all tests, those in docstrings too. The CPU is split in two before TensorFlow starts."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What XLA has compiled once, later tests load, as do the processes that they start.
_compiled = tempfile.TemporaryDirectory(prefix="compiled_by_xla_")
os.environ.setdefault("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={_compiled.name}")

import contextlib
import gc

import keras
import pytest
import tensorflow as tf

from export import exporter, served_outputs
from iterand_tf.strategies.strategy import mirrored

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True, scope="module")
def _look_through_less():
    """What is there before a module's tests stays; the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["one_device", "two_virtual_devices"])
def strategy_scope(request):
    """A function that opens the scope: none, or MirroredStrategy on two virtual CPUs."""
    if request.param == "one_device":
        return contextlib.nullcontext
    return mirrored(("CPU:0", "CPU:1")).scope


@pytest.fixture(autouse=True)
def _reload_exports_here(request, monkeypatch):
    """Importing TensorFlow takes seconds: tests that are not marked fresh_process reload exports in this process."""
    if "fresh_process" not in request.keywords:
        monkeypatch.setattr(exporter, "served_outputs", served_outputs.served_outputs)


@pytest.fixture(autouse=True)
def _fresh_keras_state():
    """The same seeds and the float32 policy at the start of each test."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
