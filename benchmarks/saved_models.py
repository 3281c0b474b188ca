"""SavedModels: bytes, load and calls of the packed export, of the dense one, and of an unfolded one, in one process.

"Unfolded" is a plain dense bake, whose BatchNormalization is not folded into the convolutions; the others are folded.
Packed and dense run the same convolutions on the same kernels once they are loaded. An export's seconds include
those of the process that loads and tries the result.
"""

import gzip
import os
import pathlib
import tempfile
import time

import environment  # noqa: F401
import numpy as np
import tensorflow as tf
from sides import Case, Ratio, take_turns

from export import export_saved_model
from export.interface import Interface
from export.network import Network
from export.saved_model import write_saved_model
from iterand_tf import Supermask, models

# Name, sparsity, distribution, type of the kernels in the file.
NETWORKS = (
    ("conv6", 0.5, "signed_constant", "float32"),
    ("resnet18", 0.6, "signed_constant", "float32"),
    ("resnet18", 0.6, "kaiming_uniform", "float32"),
    ("resnet18", 0.6, "kaiming_uniform", "bfloat16"),
)
CALLS = {1: 100, 64: 15}
RATIOS = (Ratio("packed", "dense"), Ratio("packed", "unfolded"))


def cases(options):
    for name, sparsity, distribution, kernel_dtype in NETWORKS[: 1 if options.quick else None]:
        factory = models.SubnetFactory(Supermask(sparsity, weight_distribution=distribution))
        model = models.build(name, (32, 32, 3), 10, factory)
        what = f"{name}, {distribution}" + (f", {kernel_dtype}" if kernel_dtype != "float32" else "")
        with tempfile.TemporaryDirectory() as directory:
            results, values = {}, {}
            for side in ("packed", "dense"):
                start = time.perf_counter()
                # Dense files hold what the network computes with.
                stored = kernel_dtype if side == "packed" else "float32"
                results[side] = export_saved_model(model, f"{directory}/{side}", side, kernel_dtype=stored)
                values[f"{side} export, s"] = time.perf_counter() - start
            for side, result in results.items():
                files = [file.read_bytes() for file in result.path.rglob("*") if file.is_file()]
                values[f"{side}, bytes"] = result.num_bytes
                values[f"{side} under gzip, bytes"] = sum(len(gzip.compress(contents)) for contents in files)
            metrics = results["packed"].metrics()
            values["bits a weight"] = metrics["bits_per_weight"]
            values["entropy of what is stored"] = metrics["coded_entropy_bits_per_weight"]
            values["entropy of the values"] = metrics["entropy_bits_per_weight"]
            paths = {side: str(result.path) for side, result in results.items()}
            paths["unfolded"] = os.path.join(directory, "unfolded")
            unfolded = Network.of(model, fold=False)
            write_saved_model(unfolded, pathlib.Path(paths["unfolded"]), Interface.of(model, head="softmax"))
            loads = {side: lambda path=path: tf.saved_model.load(path) for side, path in paths.items()}
            yield Case(f"{what}, load", take_turns(loads, 5), RATIOS[:1], values)
            first_calls = {side: lambda path=path: load_and_call(path) for side, path in paths.items()}
            yield Case(f"{what}, load and first call", take_turns(first_calls, 5), RATIOS[:1])
            loaded = {side: tf.saved_model.load(path) for side, path in paths.items()}
            for batch, calls in CALLS.items():
                images = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch, 32, 32, 3)), tf.float32)
                turns = {
                    side: lambda call=served.signatures["serving_default"], batch=images: call(image=batch)[
                        "logits"
                    ].numpy()
                    for side, served in loaded.items()
                }
                seconds = take_turns(turns, calls // 3 if options.quick else calls, warmup=3)
                yield Case(f"{what}, batch {batch}", seconds, RATIOS)


def load_and_call(path):
    # The model is kept for the call, which reads its variables.
    loaded = tf.saved_model.load(path)
    return loaded.signatures["serving_default"](image=tf.zeros((1, 32, 32, 3)))
