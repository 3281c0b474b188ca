"""Exports a network of frozen kernels packed, and prints what its coding takes and how long it loads.

    python benchmarks/seeded_export.py --model=resnet18 --sparsity=0.6 --weight_distribution=kaiming_uniform
    python benchmarks/seeded_export.py --model=conv6 --width_factor=0.25 --events=24
    python benchmarks/seeded_export.py --model_dir=MODEL_DIR

Nothing is trained: the scores are random. With --events they move between so many re-randomizations: each time every
score loses a little of itself and gains a little that is new, by --move. With --model_dir it is a run's best network.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import environment  # noqa: F401
import keras
import numpy as np
import tensorflow as tf

import iterand_tf
from export import export_saved_model
from iterand_tf import Supermask, models

LOADS = 3
RATE = 0.1


def network(args):
    if args.model_dir:
        return keras.models.load_model(pathlib.Path(args.model_dir, "best.keras"))
    factory = models.SubnetFactory(Supermask(args.sparsity, weight_distribution=args.weight_distribution), seed=1)
    model = models.build(args.model, (32, 32, 3), 10, factory, args.width_factor)
    draw = np.random.default_rng(0)
    kept = (1 - args.move**2) ** 0.5
    for event in range(args.events):
        for layer in iterand_tf.subnet_layers(model):
            layer.rerandomize(event + 1, RATE)
            scores = layer.scores.numpy()
            news = draw.standard_normal(scores.shape, np.float32) * scores.std()
            layer.scores.assign(kept * scores + args.move * news)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", choices=models.NAMES)
    parser.add_argument("--width_factor", type=float, default=1.0)
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--weight_distribution", default="kaiming_uniform")
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--move", type=float, default=0.1)
    parser.add_argument("--model_dir")
    args = parser.parse_args()
    model = network(args)
    print(f"{args}")
    for seeded in (True, False):
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            result = export_saved_model(model, directory, seeded=seeded)
            exported = time.perf_counter() - start
            loads, processor = [], []
            for _ in range(LOADS):
                start, used = time.perf_counter(), time.process_time()
                tf.saved_model.load(str(result.path))
                loads.append(time.perf_counter() - start)
                processor.append(time.process_time() - used)
            figures = result.metrics()
            bits, coded = figures["bits_per_weight"], figures["coded_entropy_bits_per_weight"]
            print(
                f"{'seeded' if seeded else 'by value'}: {result.num_bytes:,} bytes; {bits:.3f} bits a weight, "
                f"{bits / coded:.3f} of the entropy of what is stored ({coded:.3f}), that of the values is "
                f"{figures['entropy_bits_per_weight']:.3f}; exported in {exported:.1f} s, "
                f"load {statistics.median(loads):.2f} s, of processor time {statistics.median(processor):.2f} s, "
                f"largest difference {result.max_abs_difference}"
            )


if __name__ == "__main__":
    main()
