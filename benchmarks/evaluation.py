"""A subnetwork's `test_on_batch` and `predict_on_batch` of 128 images, against those of its bake, which has no masks.

Keras's `evaluate` is not timed: its times come in steps that double, of models without masks too.
"""

import environment  # noqa: F401
from sides import Case, Ratio, take_turns
from steps import NETWORKS, batch, compiled

from export import bake
from iterand_tf import models


def cases(options):
    images, labels = batch()
    for name, width_factor, sparsity, _, rounds in NETWORKS[: 2 if options.quick else None]:
        subnet = compiled(name, width_factor, models.SubnetFactory(sparsity=sparsity))
        baked = bake(subnet)
        baked.compile(loss=subnet.loss)
        for call, given in (("test_on_batch", (images, labels)), ("predict_on_batch", (images,))):
            turns = {
                side: lambda m=model, c=call, g=given: getattr(m, c)(*g)
                for side, model in {"bake": baked, "subnet": subnet}.items()
            }
            seconds = take_turns(turns, rounds // 5 if options.quick else rounds, warmup=2)
            ratio = Ratio("bake", "subnet", at_least=0.97)
            yield Case(f"{call}, {name} x{width_factor:g}", seconds, (ratio,))
