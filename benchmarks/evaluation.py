"""A subnetwork's `test_on_batch` and `predict_on_batch` of 128 images, against those of its bake, which has no masks.

"Ready masks" is the subnetwork with masks that are computed once and never again, so that only the products with them
remain: no place to keep masks could be faster. Keras's `evaluate` is not timed: its times come in steps that double, of
models without masks too.
"""

import environment  # noqa: F401
import tensorflow as tf
from sides import Case, Ratio, take_turns
from steps import NETWORKS, batch, compiled

from export import bake
from iterand_tf import Supermask, models, subnet_layers
from iterand_tf.layers import SubnetKernel


class KernelOfReadyMask(SubnetKernel):
    """A kernel whose mask is kept, and never computed."""

    @property
    def mask(self):
        return tf.convert_to_tensor(self.ready)


def keep_masks(model, mask_of=lambda kernel: kernel.mask):
    """Lets a model have the masks that it has now, or others, for good."""
    kernels = [kernel for layer in subnet_layers(model) for kernel in layer.subnet_kernels]
    for kernel in kernels:
        kernel.ready = tf.Variable(mask_of(kernel))
        kernel.__class__ = KernelOfReadyMask


def cases(options):
    images, labels = batch()
    for name, width_factor, sparsity, _, rounds in NETWORKS[: 2 if options.quick else None]:
        networks = {
            side: compiled(name, width_factor, models.SubnetFactory(Supermask(sparsity)))
            for side in ("subnet", "ready masks")
        }
        keep_masks(networks["ready masks"])
        networks["bake"] = bake(networks["subnet"])
        networks["bake"].compile(loss=networks["subnet"].loss)
        for call, given in (("test_on_batch", (images, labels)), ("predict_on_batch", (images,))):
            turns = {side: lambda m=model, c=call, g=given: getattr(m, c)(*g) for side, model in networks.items()}
            seconds = take_turns(turns, rounds // 5 if options.quick else rounds, warmup=2)
            ratios = (Ratio("bake", "subnet", at_least=0.97), Ratio("bake", "ready masks"))
            yield Case(f"{call}, {name} x{width_factor:g}", seconds, ratios)
