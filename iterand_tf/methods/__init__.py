"""Methods: which entries of a kernel are kept, and what is trained of a layer."""

from iterand_tf.methods.magnitude_pruning import MagnitudePruning
from iterand_tf.methods.method import Method
from iterand_tf.methods.random_pruning import RandomPruning
from iterand_tf.methods.resolve import METHODS, resolve
from iterand_tf.methods.supermask import Supermask

__all__ = ["METHODS", "MagnitudePruning", "Method", "RandomPruning", "Supermask", "resolve"]
