"""Times SavedModels in one process: the load, and calls of batch 1 and of batch 64.

    python benchmarks/serving.py --model=resnet18 --sparsity=0.6

The packed export, the dense one, and a dense one whose BatchNormalization is not folded (as a plain bake) take turns;
printed are medians, the medians of the pairwise ratios, and the sizes.
"""

import argparse
import gzip
import os
import pathlib
import statistics
import tempfile
import time

import environment  # noqa: F401
import numpy as np
import tensorflow as tf

from export import export_formats
from export.network import Network
from export.saved_model import write_saved_model
from iterand_tf import models

CALLS = {1: 200, 64: 20}
LOADS = 5


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def report(what, times):
    medians = ", ".join(f"{name} {statistics.median(values) * 1e3:.2f} ms" for name, values in times.items())
    print(f"{what}: {medians}")
    for first, second in (("packed", "dense"), ("packed", "unfolded")):
        ratios = [a / b for a, b in zip(times[first], times[second], strict=True)]
        print(f"  {first}/{second} {statistics.median(ratios):.3f} (median of the pairwise ratios)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", choices=models.NAMES)
    parser.add_argument("--width_factor", type=float, default=1.0)
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--weight_distribution", default="signed_constant")
    parser.add_argument("--kernel_dtype", default="float32")
    args = parser.parse_args()
    factory = models.SubnetFactory(sparsity=args.sparsity, weight_distribution=args.weight_distribution)
    model = models.build(args.model, (32, 32, 3), 10, factory, args.width_factor)
    with tempfile.TemporaryDirectory() as directory:
        results = export_formats(model, directory, ["packed", "dense"], kernel_dtype=args.kernel_dtype)
        for name, result in results.items():
            files = [file.read_bytes() for file in result.path.rglob("*") if file.is_file()]
            zipped = sum(len(gzip.compress(contents)) for contents in files)
            bits = result.metrics()
            print(
                f"{name}: {result.num_bytes:,} bytes, under gzip {zipped:,} bytes; "
                f"{bits['bits_per_weight']:.3f} bits a weight, the entropy is {bits['entropy_bits_per_weight']:.3f}"
            )
        paths = {name: str(result.path) for name, result in results.items()}
        paths["unfolded"] = os.path.join(directory, "unfolded")
        write_saved_model(Network.of(model, fold=False), pathlib.Path(paths["unfolded"]), model.input_shape, "softmax")
        loads = {name: [] for name in paths}
        for _ in range(LOADS):
            for name, path in paths.items():
                loads[name].append(seconds(lambda path=path: tf.saved_model.load(path)))
        report("load", loads)
        loaded = {name: tf.saved_model.load(path) for name, path in paths.items()}
        for batch, count in CALLS.items():
            images = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch, 32, 32, 3)), tf.float32)
            calls = {name: [] for name in loaded}
            for number in range(count + 3):
                for name, served in loaded.items():
                    signature = served.signatures["serving_default"]
                    duration = seconds(lambda call=signature, batch=images: call(image=batch)["logits"].numpy())
                    if number >= 3:
                        calls[name].append(duration)
            report(f"batch {batch}", calls)


if __name__ == "__main__":
    main()
