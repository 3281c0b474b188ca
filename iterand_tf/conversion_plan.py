"""Which layers of a model `to_subnet` converts, and with which method."""

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from iterand_tf import checks
from iterand_tf.cloning import is_graph
from iterand_tf.layers import Subnet
from iterand_tf.methods import Method, resolve
from iterand_tf.subclassed import units

_NAMED = 4
# What a pattern, or a function, gives a layer: a sparsity, a method, or None to leave the layer as it is.
Choice = float | Method | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of each layer: paths and methods by its id, and by the reason the paths of those that are left."""

    paths: dict[int, str]
    methods: dict[int, Method]
    left: dict[str, list[str]]

    def summary(self, subnets: list[Subnet]) -> str:
        kernels = [kernel for subnet in subnets for kernel in subnet.subnet_kernels]
        size = sum(kernel.num_weights for kernel in kernels)
        left = ", ".join(self._line(why, paths) for why, paths in self.left.items() if paths) or "none"
        verb = "chosen from" if all(kernel.is_frozen for kernel in kernels) else "pruned"
        return f"{len(subnets)} layers with {size:,} kernel entries are {verb}; left as they are: {left}"

    @staticmethod
    def _line(why, paths):
        if why == "without a kernel":
            return f"{len(paths)} {why}"
        more = ", ..." if len(paths) > _NAMED else ""
        return f"{len(paths)} {why} ({', '.join(paths[:_NAMED])}{more})"


def plan_of(
    model: keras.Model,
    sparsity: Any,
    method: str | Method,
    include: Sequence[str],
    exclude: Sequence[str],
    kernel_names: str | Sequence[str],
) -> Plan:
    """What becomes of each layer of a model; arguments and errors are those of `to_subnet`."""
    choose, patterns = _chooser(sparsity, method)
    paths = {id(layer): (path, layer) for path, layer in (_paths(model) if is_graph(model) else units(model))}
    shapes = {key: shape for key, (_, layer) in paths.items() if (shape := _largest_kernel(layer, kernel_names))}
    if not shapes:
        raise ValueError(f"to_subnet needs a model that has kernels. Received: model={model.name}, {kernel_names=}")
    with_kernel = {key: paths[key][0] for key in shapes}
    for pattern in (*patterns, *include, *exclude):
        if not fnmatch.filter(with_kernel.values(), pattern):
            raise ValueError(
                f"no layer with a kernel has a path that matches {pattern!r}; the paths are "
                f"{', '.join(list(with_kernel.values())[:8])}. Received: {patterns=}, {include=}, {exclude=}"
            )
    methods = {}
    left: dict[str, list[str]] = {
        "without a kernel": [path for key, (path, _) in paths.items() if key not in shapes],
        "not trainable": [],
        "excluded": [],
        "given no sparsity": [],
    }
    for key, path in with_kernel.items():
        chosen = choose(path, shapes[key])
        if _matches(path, exclude) or (include and not _matches(path, include)):
            left["excluded"].append(path)
        elif chosen is None:
            left["given no sparsity"].append(path)
        elif not paths[key][1].trainable:
            left["not trainable"].append(path)
        else:
            methods[key] = chosen
    if not methods:
        raise ValueError(f"no layer is left to convert. Received: {include=}, {exclude=}, left={left}")
    return Plan({key: path for key, (path, _) in paths.items()}, methods, left)


def _chooser(sparsity, method):
    """The function that gives a layer's method, or None, for its path and shape; and the patterns it goes by."""
    default = resolve(method)

    def method_of(choice, name):
        if choice is None or isinstance(choice, Method):
            return choice
        return resolve(default, checks.number(name, choice, minimum=0, below=1))

    if callable(sparsity):
        return lambda path, shape: method_of(sparsity(path, shape), f"sparsity({path!r})"), ()
    if isinstance(sparsity, Mapping):
        choices = {pattern: method_of(choice, f"sparsity[{pattern!r}]") for pattern, choice in sparsity.items()}
        matching = lambda path: (choice for pattern, choice in choices.items() if fnmatch.fnmatchcase(path, pattern))  # noqa: E731
        return lambda path, shape: next(matching(path), None), tuple(choices)
    only = default if sparsity is None else method_of(sparsity, "sparsity")
    return lambda path, shape: only, ()


def _matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _paths(model, prefix=""):
    """(path, layer) of the layers of a functional or Sequential model, those of models in it too."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            yield from _paths(layer, f"{path}/")
        else:
            yield path, layer


def _largest_kernel(layer, kernel_names):
    """The shape of the largest variable of a layer that would be masked; None if it has none."""
    names = (kernel_names,) if isinstance(kernel_names, str) else kernel_names
    shapes = [
        tuple(variable.shape)
        for variable in layer.variables
        if len(variable.shape) > 1 and _matches(variable.name, names)
    ]
    return max(shapes, key=math.prod, default=None)
