"""Evaluate and predict of a subnetwork against those of its bake, which has no masks; batches of 128."""

import environment  # noqa: F401
import tensorflow as tf
from sides import Case, Ratio, take_turns
from steps import NETWORKS, batch, compiled

from export import bake
from iterand_tf import models

BATCHES = 5


def cases(options):
    images, labels = batch()
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(BATCHES)
    for name, width_factor, sparsity, _, rounds in NETWORKS[: 2 if options.quick else None]:
        subnet = compiled(name, width_factor, models.SubnetFactory(sparsity=sparsity))
        baked = bake(subnet)
        baked.compile(loss=subnet.loss)
        for call in ("evaluate", "predict"):
            turns = {
                side: lambda m=model, c=call: getattr(m, c)(data, verbose=0)
                for side, model in {"bake": baked, "subnet": subnet}.items()
            }
            seconds = take_turns(turns, max(5, rounds // (10 if options.quick else 3)), warmup=2)
            ratio = Ratio("bake", "subnet", at_least=0.97)
            yield Case(f"{call}, {name} x{width_factor:g}, {BATCHES} batches", seconds, (ratio,))
