"""Times an exact mask against a sort of the same scores, in one process.

python benchmarks/masks.py
"""

import statistics
import time

import environment  # noqa: F401
import numpy as np
import tensorflow as tf

from iterand_tf.masks import topk_mask

SIZE = 3 * 3 * 512 * 512
SPARSITY = 0.6
ROUNDS = 9


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    for name in ("uniform", "normal"):
        draw = np.random.default_rng(0)
        scores = tf.constant(draw.uniform(-1, 1, SIZE) if name == "uniform" else draw.normal(size=SIZE), tf.float32)
        sides = {"mask": lambda s=scores: topk_mask(s, SPARSITY).numpy(), "sort": lambda s=scores: tf.sort(s).numpy()}
        times = {side: [] for side in sides}
        for function in sides.values():
            function()
        for _ in range(ROUNDS):
            for side, function in sides.items():
                times[side].append(seconds(function))
        mask, sort = (statistics.median(times[side]) * 1e3 for side in sides)
        print(f"{SIZE:,} {name} scores: mask {mask:.1f} ms, sort {sort:.1f} ms, sort/mask {sort / mask:.0f}")


if __name__ == "__main__":
    main()
