"""Exact masks at sparsity 0.6 against sorting, tf.math.top_k and numpy.partition of the same scores.

`numpy.partition` only finds the threshold; "numpy mask" also compares the scores with it, and lets ties be. "Trained"
are the scores of a layer of 1536 x 1536 weights, trained on the digits. "Ties" have about 900 different values. Of
whole networks, at 0.5: the masks of all kernels, each by itself, all together, and two of four. `torch.kthvalue` also
only finds the threshold, in a process of its own.
"""

import contextlib
import functools
import tempfile

import environment
import keras
import numpy as np
import tensorflow as tf
from sides import Case, Ratio, in_a_process, take_turns

import iterand_tf
from iterand_tf import Supermask, models, subnet_layers
from iterand_tf.data import load
from iterand_tf.masks import masks_of_largest, nm_mask, num_kept, topk_mask

SPARSITY = 0.6
WIDTH = 1536
# As many as in the largest kernel of ResNet18, 3 x 3 x 512 x 512.
LARGEST_KERNEL = WIDTH * WIDTH


@functools.cache
def trained():
    """All scores of a trained layer."""
    examples = load("digits").train
    layers = [iterand_tf.SubnetDense(width, sparsity=SPARSITY, seed=0, activation=activation)
              for width, activation in ((WIDTH, "relu"), (WIDTH, "relu"), (10, None))]  # fmt: skip
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Rescaling(1 / 16), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(iterand_tf.optimization.CoupledSGD(0.1, momentum=0.9, l2=1e-4), loss)
    model.fit(examples.images, examples.labels, batch_size=128, epochs=20, verbose=0)
    return layers[1].scores.numpy().ravel()


def scores_of(kind, size):
    draw = np.random.default_rng(0)
    return {
        "uniform": lambda: draw.uniform(-1, 1, size),
        "normal": lambda: draw.normal(size=size),
        "trained": lambda: trained()[:size],
        "ties": lambda: draw.normal(size=size).round(2),
    }[kind]()


@contextlib.contextmanager
def torch_side(python, array, kth):
    """A side that finds the kth smallest by torch, which need not be installed beside TensorFlow."""
    with tempfile.TemporaryDirectory() as directory:
        np.save(file := f"{directory}/scores.npy", array)
        command = [python, f"{environment.ROOT}/benchmarks/torch_kthvalue.py", file, str(kth)]
        with in_a_process(command) as call:
            yield {"torch.kthvalue": call}


@contextlib.contextmanager
def sides_of(scores, torch_python):
    size, array = scores.shape[0], scores.numpy()
    kept = num_kept(size, SPARSITY)
    sides = {
        "mask": lambda: topk_mask(scores, SPARSITY),
        "tf.sort": lambda: tf.sort(scores),
        "tf.math.top_k": lambda: tf.math.top_k(scores, kept, sorted=False),
        "numpy.partition": lambda: np.partition(array, size - kept),
        "numpy mask": lambda: (array >= np.partition(array, size - kept)[size - kept]).astype(np.float32),
    }
    with torch_side(torch_python, array, size - kept + 1) if torch_python else contextlib.nullcontext({}) as more:
        yield sides | more


def cases(options):
    sizes = (10**4, LARGEST_KERNEL) if options.quick else (10**3, 10**4, 10**5, 10**6, LARGEST_KERNEL, 10**7)
    for size in sizes:
        for kind in ("uniform", "normal", "ties", *(["trained"] if size == LARGEST_KERNEL else [])):
            scores = tf.constant(scores_of(kind, size), tf.float32)
            rounds = (5 if options.quick else 15) if size < 10**7 else 3
            targets = {"tf.sort": 40, "numpy.partition": 1} if size == LARGEST_KERNEL and kind != "ties" else {}
            with sides_of(scores, options.torch_python) as sides:
                seconds = take_turns(sides, rounds, warmup=2)
            ratios = tuple(Ratio(side, "mask", at_least=targets.get(side)) for side in sides if side != "mask")
            yield Case(f"{size:,} {kind}", seconds, ratios)
    yield from of_networks(options)
    if not options.quick:
        yield growth()


def of_networks(options):
    """The masks of all kernels of a network, computed in one function."""
    sparsity = 0.5
    for name in ("conv6",) if options.quick else ("conv6", "resnet18"):
        # Four channels: 2:4 masks need a multiple of four inputs.
        model = models.build(name, (32, 32, 4), 10, models.SubnetFactory(Supermask(sparsity)))
        scores = [kernel.scores for layer in subnet_layers(model) for kernel in layer.subnet_kernels]
        kept = sum(num_kept(each.shape.num_elements(), sparsity) for each in map(tf.convert_to_tensor, scores))
        turns = {
            "per kernel": tf.function(lambda s=scores, p=sparsity: [topk_mask(each, p) for each in s]),
            "global": tf.function(lambda s=scores, k=kept: masks_of_largest(s, k)),
            "2:4": tf.function(lambda s=scores: [nm_mask(each, 2, 4, range(len(each.shape) - 1)) for each in s]),
        }
        ratios = (Ratio("global", "per kernel", at_most=1.5), Ratio("2:4", "per kernel"))
        yield Case(f"all masks of {name} x1", take_turns(turns, 15, warmup=2), ratios)


def growth():
    """10^8 scores against 10^7."""
    large = tf.random.stateless_normal((10**8,), seed=(0, 0))
    both = {"10^8": large, "10^7": tf.identity(large[: 10**7])}
    seconds = take_turns({name: lambda s=s: topk_mask(s, SPARSITY) for name, s in both.items()}, 5)
    return Case("growth, normal", seconds, (Ratio("10^8", "10^7", at_most=12),))
