"""One training step of a subnetwork against one of the same network dense.

Batches of 128 images of 32x32, float32, unless the case says otherwise. The dense Conv6 trains biases, which the
subnetwork does not have. The first step, which also traces and compiles, is timed by itself. "Wrapper" is a network of
`Subnet(keras.layers.Conv2D(...))`, against one of `SubnetConv2D`. MobileNetV2 is that of keras.applications, converted.
"""

import time

import environment  # noqa: F401
import keras
import numpy as np
import tensorflow as tf
from sides import Case, Ratio, take_turns

import iterand_tf
from iterand_tf import CoupledSGD, Supermask, models

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
        return iterand_tf.Subnet(layer, method=self.method, seed=self.seed)


def compiled(name, width_factor, layers, size=32, precision="float32"):
    """A network as main.py trains it."""
    keras.config.set_dtype_policy(precision)
    model = models.build(name, (size, size, 3), NUM_CLASSES, layers, width_factor)
    keras.config.set_dtype_policy("float32")
    return with_optimizer(model)


def with_optimizer(model, from_logits=True):
    loss = keras.losses.CategoricalCrossentropy(from_logits=from_logits)
    model.compile(CoupledSGD(0.01, momentum=0.9, l2=1e-4), loss)
    return model


def batch(batch_size=BATCH_SIZE, size=32):
    """Images and labels."""
    draw = np.random.default_rng(0)
    images = tf.constant(draw.uniform(0, 255, (batch_size, size, size, 3)), tf.float32)
    return images, tf.one_hot(draw.integers(0, NUM_CLASSES, batch_size), NUM_CLASSES)


def step_case(name, networks, ratio, rounds, batch_size=BATCH_SIZE, size=32):
    """One training step of each network, and its first one, which also compiles."""
    images, labels = batch(batch_size, size)
    first_step = {}
    for side, network in networks.items():
        start = time.perf_counter()
        network.train_on_batch(images, labels)
        first_step[f"first step, {side}, s"] = time.perf_counter() - start
    turns = {side: lambda n=network: n.train_on_batch(images, labels) for side, network in networks.items()}
    return Case(name, take_turns(turns, rounds, warmup=2), (ratio,), first_step)


def cases(options):
    for name, width_factor, sparsity, target, rounds in NETWORKS[: 2 if options.quick else None]:
        factories = {"subnet": models.SubnetFactory(Supermask(sparsity)), "dense": models.StockFactory()}
        networks = {side: compiled(name, width_factor, layers) for side, layers in factories.items()}
        ratio = Ratio("subnet", "dense", at_most=target)
        yield step_case(f"{name} x{width_factor:g}", networks, ratio, rounds // 2 if options.quick else rounds)
    width = 0.25 if options.quick else 1.0
    factories = {"wrapper": WrapperFactory(Supermask(0.5)), "SubnetConv2D": models.SubnetFactory(Supermask(0.5))}
    networks = {side: compiled("conv6", width, layers) for side, layers in factories.items()}
    ratio = Ratio("wrapper", "SubnetConv2D", at_most=1.02)
    yield step_case(f"conv6 x{width:g}, wrapper", networks, ratio, rounds=20)
    if not options.quick:
        yield from of_large_networks()


def of_large_networks():
    """Converted MobileNetV2, ResNet50 at its own size, and bfloat16."""
    stock = keras.applications.MobileNetV2(weights=None, classes=NUM_CLASSES, input_shape=(96, 96, 3))
    networks = {"subnet": iterand_tf.to_subnet(stock, 0.5, seed=0, verbose=False), "dense": stock}
    networks = {side: with_optimizer(model, from_logits=False) for side, model in networks.items()}
    ratio = Ratio("subnet", "dense", at_most=1.05)
    yield step_case("mobilenet_v2, 32 images of 96x96", networks, ratio, 20, batch_size=32, size=96)
    factories = {"subnet": models.SubnetFactory(Supermask(0.6)), "dense": models.StockFactory()}
    networks = {side: compiled("resnet50", 1.0, layers, size=224) for side, layers in factories.items()}
    ratio = Ratio("subnet", "dense")
    yield step_case("resnet50, 16 images of 224x224", networks, ratio, 7, batch_size=16, size=224)
    for side, layers in factories.items():
        networks = {each: compiled("resnet18", 1.0, layers, precision=each) for each in ("float32", "mixed_bfloat16")}
        ratio = Ratio("float32", "mixed_bfloat16", at_least=1.2 if side == "subnet" else None)
        yield step_case(f"resnet18 x1, {side} in two precisions", networks, ratio, 7)
