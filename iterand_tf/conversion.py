"""to_subnet, which turns a Keras model into a network of the same topology whose kernels are chosen from."""

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from iterand_tf import checks, seeds
from iterand_tf.cloning import clone, is_graph
from iterand_tf.layers import Subnet, subnet_layers
from iterand_tf.layers.subnet import KERNELS
from iterand_tf.layers.subnet_options import SubnetOptions


def to_subnet(
    model: keras.Model,
    sparsity: float | Mapping[str, float] = SubnetOptions.sparsity,
    *,
    score_transform: str = SubnetOptions.score_transform,
    weight_distribution: str = SubnetOptions.weight_distribution,
    weight_scale: float = SubnetOptions.weight_scale,
    score_distribution: str = SubnetOptions.score_distribution,
    score_scale: float = SubnetOptions.score_scale,
    seed: int | None = None,
    exclude: Sequence[str] = (),
    kernels: Sequence[str] = KERNELS,
    verbose: bool = True,
) -> keras.Model:
    """A model of the same topology in which every layer with a kernel is a `Subnet` of that layer.

    Convolutions, dense, recurrent and attention layers, and layers of your own are all found by their kernels. The
    kernels are drawn anew, frozen, and chosen from by trained scores; whatever else the layers hold, such as biases and
    the statistics of BatchNormalization, is copied and trained as before. Models nested in the model are converted
    too. A subclassed model becomes one `Subnet` in a Sequential model.

    Args:
        model: a built model without Subnet layers; it is not changed.
        sparsity: fraction of each kernel that is removed, in [0, 1). Or a dictionary from patterns of layers' paths to
            fractions, of which the first that matches counts; layers that none matches stay as they are.
        score_transform: as in `Subnet`.
        weight_distribution: as in `Subnet`.
        weight_scale: as in `Subnet`.
        score_distribution: as in `Subnet`.
        score_scale: as in `Subnet`.
        seed: whole number of at least 0, or None for one from Python's generator. Each layer's draws are a function of
            it and the layer's path, the names of the models and of the layer, joined by slashes.
        exclude: patterns of paths of layers that stay as they are.
        kernels: patterns of the names of the variables that are chosen from, as in `Subnet`.
        verbose: whether to print one line about what was converted and what was left.

    Returns:
        The new model, not compiled.

    Raises:
        ValueError: if an argument is out of its range, a pattern matches no layer with a kernel, or the model is not
            built, has Subnet layers already or no kernel.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 3.

    Example:

    >>> import keras
    >>> from iterand_tf import subnet_layers, to_subnet
    >>> layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(2, name="head")]
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    >>> subnet = to_subnet(model, sparsity={"conv": 0.5, "head": 0.25}, seed=0)
    to_subnet: 2 layers with 324 kernel entries are chosen from; left as they are: 1 without a kernel
    >>> [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)]
    [('conv', 0.5), ('head', 0.25)]
    """
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if any(subnet_layers(model)):
        raise ValueError(f"the model has Subnet layers already, and is not converted twice. Received: {model.name=}")
    plan = _plan(model, sparsity, exclude, kernels)
    options: dict[str, Any] = {
        "score_transform": score_transform,
        "weight_distribution": weight_distribution,
        "weight_scale": weight_scale,
        "score_distribution": score_distribution,
        "score_scale": score_scale,
        "kernels": kernels,
    }
    base = seeds.make_seed(seed)
    made: list[tuple[keras.layers.Layer, Subnet]] = []

    def subnet_of(layer):
        if id(layer) not in plan.sparsities:
            return None
        layer_seed = seeds.fold(base, plan.paths[id(layer)])
        made.append((layer, Subnet(layer, sparsity=plan.sparsities[id(layer)], seed=layer_seed, **options)))
        return made[-1][1]

    if is_graph(model):
        converted = clone(model, subnet_of)
    else:
        converted = keras.Sequential([subnet_of(model)], name=model.name)
        converted.build(model.get_build_config()["input_shape"])
    for layer, subnet in made:
        _copy_other_weights(layer, subnet)
    if verbose:
        print(f"to_subnet: {plan.summary(subnet for _, subnet in made)}")
    return converted


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What becomes of each layer.

    Args:
        paths: of all layers, by their id.
        sparsities: of the layers to convert, by their id.
        left: how many are left as they are, by the reason.
    """

    paths: dict[int, str]
    sparsities: dict[int, float]
    left: dict[str, int]

    def summary(self, subnets: Iterator[Subnet]) -> str:
        size = sum(kernel.num_weights for subnet in subnets for kernel in subnet.subnet_kernels)
        left = ", ".join(f"{count} {why}" for why, count in self.left.items() if count) or "none"
        return f"{len(self.sparsities)} layers with {size:,} kernel entries are chosen from; left as they are: {left}"


def _plan(model, sparsity, exclude, kernels):
    patterns = sparsity if isinstance(sparsity, Mapping) else {"*": sparsity}
    for pattern, value in patterns.items():
        checks.number("sparsity" if pattern == "*" else f"sparsity[{pattern!r}]", value, minimum=0, below=1)
    paths = dict(_paths(model)) if is_graph(model) else {id(model): (model.name, model)}
    with_kernel = {key: path for key, (path, layer) in paths.items() if _has_kernel(layer, kernels)}
    unused = [
        pattern for pattern in (*patterns, *exclude) if not fnmatch.filter(with_kernel.values(), pattern)
    ]  # fmt: skip
    if not with_kernel:
        raise ValueError(f"to_subnet needs a model that has kernels. Received: model={model.name}, {kernels=}")
    if unused:
        raise ValueError(
            f"no layer with a kernel has a path that matches {unused[0]!r}; the paths are "
            f"{', '.join(list(with_kernel.values())[:8])}. Received: {sparsity=}, {exclude=}"
        )
    sparsities = {}
    left = {"without a kernel": len(paths) - len(with_kernel), "not trainable": 0, "excluded": 0, "matched by none": 0}
    for key, path in with_kernel.items():
        chosen = next((value for pattern, value in patterns.items() if fnmatch.fnmatchcase(path, pattern)), None)
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in exclude):
            left["excluded"] += 1
        elif chosen is None:
            left["matched by none"] += 1
        elif not paths[key][1].trainable:
            left["not trainable"] += 1
        else:
            sparsities[key] = float(chosen)
    return _Plan({key: path for key, (path, _) in paths.items()}, sparsities, left)


def _paths(model, prefix=""):
    """(id, (path, layer)) of the layers of a functional or Sequential model, those of models in it too, each once."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            yield from _paths(layer, f"{path}/")
        else:
            yield id(layer), (path, layer)


def _has_kernel(layer, kernels):
    return any(
        len(variable.shape) > 1 and any(fnmatch.fnmatchcase(variable.name, pattern) for pattern in kernels)
        for variable in layer.variables
    )


def _copy_other_weights(layer, subnet):
    """Gives a Subnet's layer the weights of the layer that it stands for, its kernels left out."""
    chosen = {id(kernel.variable) for kernel in subnet.subnet_kernels}
    sources = {_place(variable, layer): variable for variable in layer.variables}
    for variable in subnet.layer.variables:
        source = sources.get(_place(variable, subnet.layer))
        if id(variable) not in chosen and source is not None:
            variable.assign(np.asarray(source))


def _place(variable, layer):
    """The variable's path below its layer."""
    return variable.path.rpartition(f"{layer.name}/")[2] if layer.name in variable.path else variable.path
