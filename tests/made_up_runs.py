"""Finished runs as a figure of the paper has them, made up: tests of tables and pictures need no training."""

import dataclasses
import math
import random

from iterand_tf.experiments.finished_runs import Run, read_flags

METHODS = {
    "dense": ["--method=dense", "--weight_distribution=kaiming_uniform", "--learning_rate=0.01"],
    "ku_edge_popup": ["--method=edge_popup", "--weight_distribution=kaiming_uniform"],
    "sc_edge_popup": ["--method=edge_popup", "--weight_distribution=signed_constant"],
    "ku_iterand": ["--method=iterand", "--weight_distribution=kaiming_uniform"],
    "sc_iterand": ["--method=iterand", "--weight_distribution=signed_constant"],
}
WEIGHTS = {0.25: 142_128, 0.5: 566_368, 1.0: 2_261_184, 2.0: 9_036_160}


def made_up_run(method: str, width_factor: float, seed: int, epochs: int = 20, flags: tuple[str, ...] = ()) -> Run:
    """One run; its accuracy grows with the width and the epochs."""
    text = [*METHODS[method], f"--width_factor={width_factor}", f"--seed={seed}", f"--epochs={epochs}", *flags]
    chance = random.Random(f"{method}{width_factor}{seed}{flags}")
    last = 0.55 + 0.1 * math.log2(width_factor * 4) + 0.02 * list(METHODS).index(method) + chance.gauss(0, 0.01)
    rows = []
    for epoch in range(1, epochs + 1):
        accuracy = last * (1 - math.exp(-epoch / 4)) + chance.gauss(0, 0.003)
        row = {"epoch": float(epoch), "val_accuracy": accuracy, "images_per_second": 1000.0}
        rows.append(row if method == "dense" else row | {"mask_flip_ratio": 0.2 * math.exp(-epoch / 3)})
    weights = WEIGHTS[width_factor]
    result = {
        "test_accuracy": rows[-1]["val_accuracy"] - 0.005,
        "best_test_accuracy": rows[-1]["val_accuracy"] - 0.004,
        "validation_accuracy": rows[-1]["val_accuracy"],
        "num_weights": weights,
        "num_kept": weights if method == "dense" else weights // 2,
        "seconds": 100.0 * width_factor,
        "export_bytes": weights * (4 if method == "dense" else 0.2),
    }
    names = [f"stage{stage}_conv{conv}" for stage in (1, 2, 3) for conv in (1, 2)] + ["dense1", "dense2", "head"]
    layers = [{"name": name, "num_weights": 1000, "num_kept": 500} for name in names] if method != "dense" else []
    return Run(read_flags("\n".join(text)), result, rows, layers)


def figure2() -> list[Run]:
    """All methods, four widths, three seeds."""
    return [made_up_run(method, width, seed) for method in METHODS for width in WEIGHTS for seed in (1, 2, 3)]


def figure1() -> list[Run]:
    """One method, four rates, two seeds."""
    rates = [("--rerandomization_rate=" + rate,) for rate in ("0", "0.01", "0.1", "1")]
    return [made_up_run("ku_iterand", 0.25, seed, flags=rate) for rate in rates for seed in (1, 2)]


def exported(run: Run, **sizes: int) -> Run:
    """The run with more formats in its result."""
    return dataclasses.replace(run, result=run.result | sizes)
