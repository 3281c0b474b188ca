"""Train networks by choosing random weights instead of optimizing them (IteRand, arXiv 2106.09269); prune others."""

# Before TensorFlow is imported.
import iterand_tf.startup  # noqa: F401  # isort: skip

from typing import Any

import keras

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

# Exports are written by TensorFlow, from models of its backend.
if keras.config.backend() == "tensorflow":
    __all__ += ["export_saved_model"]


def __getattr__(name: str) -> Any:
    if name == "export_saved_model":
        # TensorFlow takes seconds to import.
        from export import export_saved_model

        return export_saved_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
