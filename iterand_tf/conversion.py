"""to_subnet, which turns a Keras model into a network of the same topology whose kernels are chosen from."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from iterand_tf import checks, masks, seeds
from iterand_tf.cloning import clone, is_graph
from iterand_tf.layers import GlobalMasks, Subnet, subnet_layers
from iterand_tf.layers.subnet import KERNEL_NAMES
from iterand_tf.layers.subnet_options import KERNEL_METHODS, SubnetOptions
from iterand_tf.layers.walk import all_layers

_NAMED = 4


def to_subnet(
    model: keras.Model,
    sparsity: float | Mapping[str, float] | Callable[[str, tuple[int, ...]], float | None] = SubnetOptions.sparsity,
    *,
    method: str = SubnetOptions.method,
    kernels: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    first_sparsity: float | None = None,
    head_sparsity: float | None = None,
    mask: str = SubnetOptions.mask,
    min_per_channel: int = SubnetOptions.min_per_channel,
    binarize: bool = SubnetOptions.binarize,
    score_transform: str = SubnetOptions.score_transform,
    weight_distribution: str = SubnetOptions.weight_distribution,
    weight_scale: float = SubnetOptions.weight_scale,
    score_distribution: str = SubnetOptions.score_distribution,
    score_scale: float = SubnetOptions.score_scale,
    batch_normalization_gains: bool = True,
    kernel_names: Sequence[str] = KERNEL_NAMES,
    seed: int | None = None,
    verbose: bool = True,
) -> keras.Model:
    """A model of the same topology in which every layer with a kernel is a `Subnet` of that layer.

    Convolutions, dense, recurrent and attention layers, and layers of your own are all found by their kernels. With
    the method iterand, kernels are drawn anew, frozen, and chosen from by trained scores. With the two pruning methods
    the kernels of the model are kept, and trained on under their masks. Whatever else the layers hold, such as biases
    and the statistics of BatchNormalization, is copied and trained as before. Models nested in the model are converted
    too. A subclassed model becomes one `Subnet` in a functional model, whose path is the model's name: patterns and
    exceptions see it as one layer. `export.bake` is the way back.

    Args:
        model: a built model without Subnet layers; it is not changed.
        sparsity: fraction of each kernel that is removed, in [0, 1). Or a dictionary from patterns of layers' paths to
            fractions, of which the first that matches counts. Or a function of (path, shape of the layer's largest
            kernel). Layers that no pattern matches, or for which the function gives None, stay as they are.
        method: `"iterand"`, of which edge-popup is the case without re-draws, `"magnitude_pruning"` or
            `"random_pruning"`, as in `Subnet`.
        kernels: `"redraw"` for kernels from `weight_distribution`, `"keep"` for those of the model. None for redraw
            with the method iterand and keep with the others.
        include: patterns of paths of layers; if there are any, all other layers stay as they are.
        exclude: patterns of paths of layers that stay as they are.
        first_sparsity: sparsity of the first layer that is converted, None for that of `sparsity`.
        head_sparsity: sparsity of the last layer that is converted, None for that of `sparsity`.
        mask: `"per_kernel"`; `"global"`, one threshold for the scores of all kernels, which then have one sparsity; or
            `"N:M"`, as in `Subnet`.
        min_per_channel: as in `Subnet`.
        binarize: as in `Subnet`.
        score_transform: as in `Subnet`.
        weight_distribution: as in `Subnet`.
        weight_scale: as in `Subnet`.
        score_distribution: as in `Subnet`.
        score_scale: as in `Subnet`.
        batch_normalization_gains: whether BatchNormalization keeps its trained scale and center; the paper's networks
            have none. Those inside of layers of your own keep them.
        kernel_names: patterns of the names of the variables that are chosen from, as in `Subnet`.
        seed: whole number of at least 0, or None for one from Python's generator. Each layer's draws are a function of
            it and the layer's path, the names of the models and of the layer, joined by slashes.
        verbose: whether to print one line about what was converted and what was left.

    Returns:
        The new model, not compiled.

    Raises:
        ValueError: if an argument is out of its range, a pattern matches no layer with a kernel, a kernel does not fit
            the mask, or the model is not built, has Subnet layers already or no kernel.

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
    if not isinstance(model, keras.Model):
        raise checks.ArgumentError("model", "a Keras model", model)
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if any(subnet_layers(model)):
        raise ValueError(f"the model has Subnet layers already, and is not converted twice. Received: {model.name=}")
    if kernels is None:
        kernels = "keep" if method in KERNEL_METHODS else "redraw"
    keeps = checks.one_of("kernels", kernels, ("redraw", "keep")) == "keep"
    is_global = mask == masks.GLOBAL
    if is_global and not (isinstance(sparsity, int | float) and first_sparsity is None and head_sparsity is None):
        raise checks.ArgumentError("sparsity", "one number for all layers with mask='global'", sparsity)
    plan = _plan(model, sparsity, include, exclude, kernel_names, first_sparsity, head_sparsity)
    options: dict[str, Any] = {
        "method": method,
        "mask": masks.PER_KERNEL if is_global else mask,
        "min_per_channel": min_per_channel,
        "binarize": binarize,
        "score_transform": score_transform,
        "weight_distribution": weight_distribution,
        "weight_scale": weight_scale,
        "score_distribution": score_distribution,
        "score_scale": score_scale,
        "kernel_names": kernel_names,
    }
    base = seeds.make_seed(seed)
    made: list[tuple[keras.layers.Layer, Subnet]] = []

    def replacement(layer):
        if id(layer) in plan.sparsities:
            layer_seed = seeds.fold(base, plan.paths[id(layer)])
            made.append((layer, Subnet(layer, sparsity=plan.sparsities[id(layer)], seed=layer_seed, **options)))
            return made[-1][1]
        if not batch_normalization_gains and _has_gains(layer) and not _matches(plan.paths[id(layer)], exclude):
            return _without_gains(layer)
        return None

    if is_graph(model):
        converted = clone(model, replacement)
    else:
        inputs = _inputs(model)
        converted = keras.Model(inputs, replacement(model)(inputs), name=model.name)
    for layer, subnet in made:
        _take_weights(subnet, layer, keeps)
    if is_global:
        inputs, outputs = (
            (converted.inputs[0], converted.outputs[0])
            if isinstance(converted, keras.Sequential)
            else (converted.input, converted.output)
        )
        converted = GlobalMasks(inputs, outputs, name=converted.name)
    if verbose:
        print(f"to_subnet: {plan.summary(list(subnet_layers(converted)))}")
    return converted


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What becomes of each layer.

    Args:
        paths: of all layers, by their id.
        sparsities: of the layers to convert, by their id.
        left: the paths of those that are left as they are, by the reason.
    """

    paths: dict[int, str]
    sparsities: dict[int, float]
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


def _plan(model, sparsity, include, exclude, kernel_names, first_sparsity, head_sparsity):
    paths = dict(_paths(model)) if is_graph(model) else {id(model): (model.name, model)}
    shapes = {key: shape for key, (_, layer) in paths.items() if (shape := _largest_kernel(layer, kernel_names))}
    if not shapes:
        raise ValueError(f"to_subnet needs a model that has kernels. Received: model={model.name}, {kernel_names=}")
    with_kernel = {key: paths[key][0] for key in shapes}
    patterns = list(sparsity) if isinstance(sparsity, Mapping) else []
    for pattern in (*patterns, *include, *exclude):
        # BatchNormalization is excluded from losing its gains, too.
        candidates = (path for path, _ in paths.values()) if pattern in exclude else with_kernel.values()
        if not fnmatch.filter(candidates, pattern):
            raise ValueError(
                f"no layer with a kernel has a path that matches {pattern!r}; the paths are "
                f"{', '.join(list(with_kernel.values())[:8])}. Received: {sparsity=}, {include=}, {exclude=}"
            )
    sparsity_of = _sparsity_function(sparsity)
    sparsities = {}
    left: dict[str, list[str]] = {
        "without a kernel": [path for key, (path, _) in paths.items() if key not in shapes],
        "not trainable": [],
        "excluded": [],
        "given no sparsity": [],
    }
    for key, path in with_kernel.items():
        value = sparsity_of(path, shapes[key])
        if _matches(path, exclude) or (include and not _matches(path, include)):
            left["excluded"].append(path)
        elif value is None:
            left["given no sparsity"].append(path)
        elif not paths[key][1].trainable:
            left["not trainable"].append(path)
        else:
            sparsities[key] = float(value)
    if not sparsities:
        raise ValueError(f"no layer is left to convert. Received: {sparsity=}, {include=}, {exclude=}")
    for name, value, place in (("first_sparsity", first_sparsity, 0), ("head_sparsity", head_sparsity, -1)):
        if value is not None:
            sparsities[list(sparsities)[place]] = checks.number(name, value, minimum=0, below=1)
    return _Plan({key: path for key, (path, _) in paths.items()}, sparsities, left)


def _sparsity_function(sparsity):
    """What gives a layer's sparsity, or None, for its path and the shape of its largest kernel."""
    if callable(sparsity):

        def of_function(path, shape):
            value = sparsity(path, shape)
            return None if value is None else checks.number(f"sparsity({path!r})", value, minimum=0, below=1)

        return of_function
    if not isinstance(sparsity, Mapping):
        number = checks.number("sparsity", sparsity, minimum=0, below=1)
        return lambda path, shape: number
    for pattern, value in sparsity.items():
        checks.number(f"sparsity[{pattern!r}]", value, minimum=0, below=1)
    return lambda path, shape: next(
        (value for pattern, value in sparsity.items() if fnmatch.fnmatchcase(path, pattern)), None
    )


def _matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _paths(model, prefix=""):
    """(id, (path, layer)) of the layers of a functional or Sequential model, those of models in it too, each once."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            yield from _paths(layer, f"{path}/")
        else:
            yield id(layer), (path, layer)


def _largest_kernel(layer, kernel_names):
    """The shape of the largest variable of a layer that would be chosen from; None if it has none."""
    shapes = [
        tuple(variable.shape)
        for variable in layer.variables
        if len(variable.shape) > 1 and _matches(variable.name, kernel_names)
    ]
    return max(shapes, key=math.prod, default=None)


def _inputs(model):
    """Inputs like those that a subclassed model was built on."""

    def inputs(shape):
        if isinstance(shape, dict):
            return {name: inputs(each) for name, each in shape.items()}
        if all(size is None or isinstance(size, int) for size in shape):
            return keras.Input(batch_shape=(None, *shape[1:]), dtype=model.input_dtype)
        return [inputs(each) for each in shape]

    config = model.get_build_config() or {}
    if "input_shape" not in config:
        raise ValueError(
            "what the subclassed model takes is not known; let its call take one argument, or write it as "
            f"keras.Model(inputs, outputs). Received: model={model.name} of class {type(model).__name__}"
        )
    return inputs(config["input_shape"])


def _take_weights(subnet, layer, with_kernels):
    """Gives a Subnet the weights of the layer that it stands for."""
    if not subnet.subnet_kernels:
        raise ValueError(
            f"the kernels of the layer {layer.name} are not made by add_weight, so they cannot be chosen from; exclude "
            f"it. Received: layer of class {type(layer).__name__}"
        )
    for ours, theirs in zip(all_layers(subnet.layer), all_layers(layer), strict=False):
        if ours.trainable != theirs.trainable:
            raise ValueError(
                f"the layer {theirs.name} inside of {layer.name} was frozen after it was made, which a copy does not "
                f"see; set trainable where it is made, or exclude {layer.name}. Received: trainable={theirs.trainable}"
            )
    subnet.take_weights(layer, with_kernels)


def _has_gains(layer):
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable and (layer.scale or layer.center)


def _without_gains(layer):
    """A BatchNormalization of the same statistics without scale and center."""
    copy = type(layer).from_config(layer.get_config() | {"scale": False, "center": False})
    copy.build(layer.get_build_config()["input_shape"])
    copy.moving_mean.assign(layer.moving_mean)
    copy.moving_variance.assign(layer.moving_variance)
    return copy
