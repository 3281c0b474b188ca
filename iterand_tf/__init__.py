"""Train networks by choosing random weights instead of optimizing them (IteRand, arXiv 2106.09269); prune others."""

# Before TensorFlow is imported.
import iterand_tf.startup  # noqa: F401  # isort: skip

import importlib.util
from typing import Any

from iterand_tf import masks, models
from iterand_tf.callbacks import Rerandomize, SparsityScheduler, rerandomize_model
from iterand_tf.conversion import bake, prune, to_subnet
from iterand_tf.layers import Subnet, SubnetConv2D, SubnetDense, set_sparsity, subnet_layers
from iterand_tf.methods import MagnitudePruning, RandomPruning, Supermask
from iterand_tf.optimization import CoupledSGD
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.version import __version__

__all__ = [
    "CoupledSGD",
    "MagnitudePruning",
    "RandomPruning",
    "Rerandomize",
    "SparsityScheduler",
    "Subnet",
    "SubnetConv2D",
    "SubnetDense",
    "Supermask",
    "__version__",
    "bake",
    "masks",
    "models",
    "prune",
    "rerandomize_model",
    "set_sparsity",
    "sparsity_report",
    "subnet_layers",
    "to_subnet",
]

if importlib.util.find_spec("tensorflow"):
    __all__ += ["export_saved_model"]


def __getattr__(name: str) -> Any:
    if name == "export_saved_model":
        # It is imported when it is used: it needs TensorFlow, also where Keras runs on another backend.
        from export import export_saved_model

        return export_saved_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
