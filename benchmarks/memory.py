"""Peak memory of a process that trains a subnetwork, against one that trains the same network dense; batch 128.

The peak is Linux's count of resident memory, from a process of its own that makes five steps: with TensorFlow, the
compiler and all. A subnetwork may take twice the bytes of its kernels more: frozen ones, and a step's effective ones.
"Ready masks" is the subnetwork with float32 masks that are given to it, so that none is computed. "Masks alone" is what
the peak of a process grows by when all masks are computed once, most of it for compiling them.
"""

import pathlib
import re
import statistics
import subprocess
import sys

import environment
import numpy as np
import tensorflow as tf
from evaluation import keep_masks
from sides import Case, at_most
from steps import batch, compiled

from iterand_tf import Supermask, models, sparsity_report, subnet_layers

STEPS = 5
MEGABYTE = 1 << 20
SIDES = SUBNET, DENSE, READY, MASKS = "subnet", "dense", "ready masks", "masks alone"
SUBNET_LAYERS = models.SubnetFactory(Supermask(0.6))


def cases(options):
    width_factor = 0.25 if options.quick else 1.0
    peaks = {side: [] for side in SIDES}
    for _ in range(1 if options.quick else 3):
        for side, values in peaks.items():
            values.append(memory_of_a_process(width_factor, side))
    medians = {side: statistics.median(values) for side, values in peaks.items()}
    kernel_bytes = 4 * sparsity_report(compiled("resnet18", width_factor, SUBNET_LAYERS)).total.num_weights
    most = medians[DENSE] + 2 * kernel_bytes / MEGABYTE
    values = {f"{SUBNET}, MiB": medians[SUBNET], "target, MiB": at_most(medians[SUBNET], most)}
    values |= {f"{side}, MiB": medians[side] for side in SIDES}
    yield Case(f"resnet18 x{width_factor:g}", values=values)


def memory_of_a_process(width_factor, side):
    """Resident memory in MiB: the peak of training, or what masks add to it."""
    command = [sys.executable, __file__, str(width_factor), side]
    result = subprocess.run(command, cwd=environment.ROOT, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def peak():
    # ru_maxrss would begin with that of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def main():
    width_factor, side = sys.argv[1:]
    layers = models.StockFactory() if side == DENSE else SUBNET_LAYERS
    network = compiled("resnet18", float(width_factor), layers)
    if side == MASKS:
        before = peak()
        for layer in subnet_layers(network):
            for kernel in layer.subnet_kernels:
                tf.convert_to_tensor(kernel.mask)
        print(peak() - before)
        return
    if side == READY:
        draw = np.random.default_rng(0)
        keep_masks(
            network, lambda kernel: (draw.random(kernel.shape) < 1 - SUBNET_LAYERS.method.sparsity).astype(np.float32)
        )
    images, labels = batch()
    for _ in range(STEPS):
        network.train_on_batch(images, labels)
    print(peak())


if __name__ == "__main__":
    main()
