"""One re-randomization of all kernels of a network against one of its training steps, batch 128."""

import environment  # noqa: F401
from sides import Case, Ratio, take_turns
from steps import batch, compiled

from iterand_tf import Supermask, models, subnet_layers


def cases(options):
    images, labels = batch()
    for width_factor in (0.25,) if options.quick else (0.25, 1.0):
        for distribution in ("kaiming_uniform", "signed_constant"):
            factory = models.SubnetFactory(Supermask(0.6, weight_distribution=distribution))
            model = compiled("resnet18", width_factor, factory)
            turns = {
                "event": lambda m=model: [layer.rerandomize(0, 0.1) for layer in subnet_layers(m)],
                "step": lambda m=model: m.train_on_batch(images, labels),
            }
            seconds = take_turns(turns, 5 if options.quick else 9, warmup=2)
            target = 0.25 if width_factor == 1 else None
            yield Case(
                f"resnet18 x{width_factor:g}, {distribution}", seconds, (Ratio("event", "step", at_most=target),)
            )
