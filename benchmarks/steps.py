"""One training step of a subnetwork against one of the same network dense, batch 128, 32x32 images, float32.

The dense Conv6 trains biases, which the subnetwork does not have. The first step, which also traces and compiles, is
timed by itself. "Wrapper" is a network of `Subnet(keras.layers.Conv2D(...))`, against one of `SubnetConv2D`.
"""

import time

import environment  # noqa: F401
import keras
import numpy as np
import tensorflow as tf
from sides import Case, Ratio, take_turns

import iterand_tf
from iterand_tf import models
from iterand_tf.optimization import CoupledSGD

NUM_CLASSES = 10
BATCH_SIZE = 128
# Name, width, sparsity, most that the ratio may be, rounds.
NETWORKS = (
    ("conv6", 0.25, 0.5, 1.05, 100),
    ("resnet18", 0.25, 0.6, 1.03, 30),
    ("conv6", 1.0, 0.5, 1.02, 20),
    ("resnet18", 1.0, 0.6, 1.02, 10),
)


class WrapperFactory(models.SubnetFactory):
    """Wraps stock layers, where `SubnetFactory` has layers of their own."""

    def conv2d(self, filters, kernel_size, *, name, **kwargs):
        return self._wrapped(keras.layers.Conv2D(filters, kernel_size, name=name, **kwargs | {"use_bias": False}))

    def dense(self, units, *, name, **kwargs):
        return self._wrapped(keras.layers.Dense(units, name=name, **kwargs | {"use_bias": False}))

    head = dense

    def _wrapped(self, layer):
        return iterand_tf.Subnet(layer, sparsity=self.sparsity, seed=self.seed)


def compiled(name, width_factor, layers):
    """A network as main.py trains it."""
    model = models.build(name, (32, 32, 3), NUM_CLASSES, layers, width_factor)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(CoupledSGD(0.01, momentum=0.9, l2=1e-4), loss)
    return model


def batch():
    """Images and labels."""
    draw = np.random.default_rng(0)
    images = tf.constant(draw.uniform(0, 255, (BATCH_SIZE, 32, 32, 3)), tf.float32)
    return images, tf.one_hot(draw.integers(0, NUM_CLASSES, BATCH_SIZE), NUM_CLASSES)


def cases(options):
    images, labels = batch()
    for name, width_factor, sparsity, target, rounds in NETWORKS[: 2 if options.quick else None]:
        factories = {"subnet": models.SubnetFactory(sparsity=sparsity), "dense": models.StockFactory()}
        networks = {side: compiled(name, width_factor, layers) for side, layers in factories.items()}
        first_step = {}
        for side, network in networks.items():
            start = time.perf_counter()
            network.train_on_batch(images, labels)
            first_step[f"first step, {side}, s"] = time.perf_counter() - start
        turns = {side: lambda n=network: n.train_on_batch(images, labels) for side, network in networks.items()}
        yield Case(
            f"{name} x{width_factor:g}",
            take_turns(turns, rounds // 2 if options.quick else rounds, warmup=2),
            (Ratio("subnet", "dense", at_most=target),),
            first_step,
        )
    width = 0.25 if options.quick else 1.0
    factories = {"wrapper": WrapperFactory(sparsity=0.5), "SubnetConv2D": models.SubnetFactory(sparsity=0.5)}
    networks = {side: compiled("conv6", width, layers) for side, layers in factories.items()}
    turns = {side: lambda n=network: n.train_on_batch(images, labels) for side, network in networks.items()}
    seconds = take_turns(turns, 20, warmup=3)
    yield Case(f"conv6 x{width:g}, wrapper", seconds, (Ratio("wrapper", "SubnetConv2D", at_most=1.02),))
