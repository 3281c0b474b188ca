"""A training step of a subnetwork under other settings than TensorFlow's defaults, each in a process of its own.

"Default" has what main.py and the benchmarks set: oneDNN on, and a thread for each core within an operation and between
operations. "Memory kept" lets the C library's allocator keep large blocks, which it gives back to the system by
default; "no Grappler" leaves TensorFlow's graphs as they are traced; "jit_compile" is that of `model.compile`.
Subnormal numbers have no setting: TensorFlow's threads take them for zero.
"""

import contextlib
import sys

import environment  # noqa: F401
import tensorflow as tf
from sides import Case, Ratio, in_a_process, take_turns
from steps import batch, compiled

from iterand_tf import Supermask, models

NO_GRAPPLER, JIT_COMPILE = "no Grappler", "jit_compile"
# What the user's environment may say otherwise.
DEFAULT = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_NUM_INTRAOP_THREADS": "0", "TF_NUM_INTEROP_THREADS": "0"}
SETTINGS = {
    "default": {},
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "1 thread within": {"TF_NUM_INTRAOP_THREADS": "1"},
    "1 thread between": {"TF_NUM_INTEROP_THREADS": "1"},
    "memory kept": {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)},
    NO_GRAPPLER: {},
    JIT_COMPILE: {},
}


def cases(options):
    if options.quick:
        return
    for name, width_factor, rounds in (("conv6", "0.25", 30), ("resnet18", "0.25", 10), ("conv6", "1", 10)):
        with contextlib.ExitStack() as processes:
            turns = {}
            for side, variables in SETTINGS.items():
                command = [sys.executable, __file__, name, width_factor, side]
                turns[side] = processes.enter_context(in_a_process(command, **DEFAULT | variables))
            seconds = take_turns(turns, rounds, warmup=2)
        ratios = tuple(Ratio(side, "default") for side in SETTINGS if side != "default")
        yield Case(f"{name} x{width_factor}", seconds, ratios)


def main():
    name, width_factor, side = sys.argv[1:]
    if side == NO_GRAPPLER:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    network = compiled(name, float(width_factor), models.SubnetFactory(Supermask(0.5)))
    if side == JIT_COMPILE:
        network.compile(network.optimizer, network.loss, jit_compile=True)
    images, labels = batch()
    for _ in sys.stdin:
        network.train_on_batch(images, labels)
        print(flush=True)


if __name__ == "__main__":
    main()
