"""Train networks by choosing random weights instead of optimizing them (IteRand, arXiv 2106.09269)."""

# Before TensorFlow is imported.
import iterand_tf.startup  # noqa: F401  # isort: skip

from iterand_tf import masks, models, optimization
from iterand_tf.callbacks import Rerandomize, rerandomize_model
from iterand_tf.conversion import to_subnet
from iterand_tf.layers import Subnet, SubnetConv2D, SubnetDense, subnet_layers
from iterand_tf.rerandomization import RerandomizationSchedule
from iterand_tf.sparsity_report import sparsity_report
from iterand_tf.sparsity_schedule import SparsitySchedule, set_sparsity
from iterand_tf.version import __version__

__all__ = [
    "RerandomizationSchedule",
    "Rerandomize",
    "SparsitySchedule",
    "Subnet",
    "SubnetConv2D",
    "SubnetDense",
    "__version__",
    "masks",
    "models",
    "optimization",
    "rerandomize_model",
    "set_sparsity",
    "sparsity_report",
    "subnet_layers",
    "to_subnet",
]
