"""Gross regressions of speed, and nothing finer: a ratio of two sides of one process, with a wide margin.

`make bench` measures; this only notices when something has become several times slower. No other test asserts how fast
something is.
"""

import time

import numpy as np
import pytest
import tensorflow as tf

from iterand_tf.masks import topk_mask

ROUNDS = 5


@pytest.mark.performance
def test_a_mask_is_several_times_faster_than_a_sort():
    # 40 times and more, see docs/performance.md.
    scores = tf.constant(np.random.default_rng(0).normal(size=3 * 3 * 512 * 512), tf.float32)
    sides = {"mask": lambda: topk_mask(scores, 0.6), "sort": lambda: tf.sort(scores)}
    seconds = {side: [] for side in sides}
    for _ in range(1 + ROUNDS):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    assert min(seconds["sort"]) > 8 * min(seconds["mask"])
