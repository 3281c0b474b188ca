"""to_subnet and prune, which turn a Keras model into a network with masked kernels, and bake, the way back."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence

import keras

from iterand_tf import checks, seeds
from iterand_tf.cloning import assign_all, clone, copy_of, is_graph
from iterand_tf.layers import Subnet, share_kept, subnet_layers
from iterand_tf.layers.subnet import KERNEL_NAMES
from iterand_tf.layers.walk import all_layers
from iterand_tf.methods import Method, resolve
from iterand_tf.models.factories import SampledKernel

_NAMED = 4
# What a pattern, or a function, gives a layer: a sparsity, a method, or None to leave the layer as it is.
Choice = float | Method | None


def to_subnet(
    model: keras.Model,
    sparsity: float | Mapping[str, Choice] | Callable[[str, tuple[int, ...]], Choice] | None = None,
    method: str | Method = "supermask",
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    kernels: str | None = None,
    kernel_names: str | Sequence[str] = KERNEL_NAMES,
    seed: int | None = None,
    verbose: bool = True,
) -> keras.Model:
    """A copy of a model in which every layer with a kernel is a `Subnet` of that layer.

    Convolutions, dense, recurrent and attention layers, and layers of your own are all found by their kernels. With a
    supermask, kernels are drawn at random, frozen, and chosen from by trained scores. The pruning methods keep the
    kernels of the model and train them under their masks. Whatever else the layers hold, such as biases and the
    statistics of BatchNormalization, is copied and trained as before. Models nested in the model are converted too.
    `bake` is the way back.

    Args:
        model: a built model without Subnet layers; it is not changed.
        sparsity: fraction of each kernel that is removed, in [0, 1); None for that of the method, 0.5 by default. Or a
            dictionary from patterns of layers' paths to fractions, method objects or None, of which the first that
            matches counts: `{"head": None, "conv*": MagnitudePruning(0.9), "*": 0.5}`. Or a function of (path, shape of
            the layer's largest kernel) that gives one of these. Layers that no pattern matches, or that get None, stay
            as they are.
        method: `"supermask"`, `"magnitude_pruning"`, `"random_pruning"` or a method object, as in `Subnet`.
        include: patterns of paths of layers; if there are any, all other layers stay as they are.
        exclude: patterns of paths of layers that stay as they are.
        kernels: `"redraw"` for kernels that the method draws, `"keep"` for those of the model. None redraws frozen
            kernels and keeps trained ones.
        kernel_names: patterns of the names of the variables that are masked, as in `Subnet`.
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
    >>> subnet = to_subnet(model, {"conv": 0.5, "head": 0.25}, seed=0)
    to_subnet: 2 layers with 324 kernel entries are chosen from; left as they are: 1 without a kernel
    >>> [(layer.name, layer.sparsity) for layer in subnet_layers(subnet)]
    [('conv', 0.5), ('head', 0.25)]
    """
    if not isinstance(model, keras.Model):
        raise checks.ArgumentError("model", "a Keras model", model)
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if subnet_layers(model):
        raise ValueError(f"the model has Subnet layers already, and is not converted twice. Received: {model.name=}")
    if kernels is not None:
        checks.one_of("kernels", kernels, ("redraw", "keep"))
    plan = _plan(model, *_chooser(sparsity, method), include, exclude, kernel_names)
    base = seeds.make_seed(seed)
    made: list[tuple[keras.layers.Layer, Subnet]] = []

    def replacement(layer):
        if id(layer) not in plan.methods:
            return None
        seed_of_layer = seeds.fold(base, plan.paths[id(layer)])
        method_of_layer = plan.methods[id(layer)]
        subnet = Subnet(copy_of(layer), method=method_of_layer, seed=seed_of_layer, kernel_names=kernel_names)
        made.append((layer, subnet))
        return subnet

    if is_graph(model):
        converted = clone(model, replacement)
    else:
        inputs = _inputs(model)
        converted = keras.Model(inputs, replacement(model)(inputs), name=model.name)
    for layer, subnet in made:
        _take_weights(subnet, layer, kernels)
    share_kept(converted)
    if verbose:
        print(f"to_subnet: {plan.summary(subnet_layers(converted))}")
    return converted


def prune(
    model: keras.Model,
    sparsity: float | Mapping[str, Choice] | Callable[[str, tuple[int, ...]], Choice] | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    verbose: bool = True,
) -> keras.Model:
    """A copy of a trained model that computes with the largest entries of its kernels, to train further.

    This is `to_subnet` with the method `MagnitudePruning`. Train the copy for some epochs so that it gets used to its
    masks, with a `SparsityScheduler` if the sparsity is high, and ship it with `export_saved_model`.

    Args:
        model: as in `to_subnet`.
        sparsity: as in `to_subnet`.
        include: as in `to_subnet`.
        exclude: as in `to_subnet`.
        verbose: as in `to_subnet`.

    Returns:
        The new model, not compiled.

    Raises:
        ValueError: as `to_subnet`.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017.

    Example:

    >>> import keras
    >>> from iterand_tf import prune
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = prune(model, 0.75)
    to_subnet: 1 layers with 32 kernel entries are pruned; left as they are: none
    >>> pruned.layers[0].subnet_kernels[0].num_kept
    8
    """
    return to_subnet(model, sparsity, "magnitude_pruning", include=include, exclude=exclude, verbose=verbose)


def can_bake(model: keras.Model) -> bool:
    """Whether `bake` takes the model: each layer with Subnet layers inside is a functional or Sequential model."""
    if not is_graph(model):
        return False
    return all(
        can_bake(layer) if isinstance(layer, keras.Model) else isinstance(layer, Subnet)
        for layer in model.layers
        if subnet_layers(layer)
    )


def bake(model: keras.Model) -> keras.Model:
    """A copy of a model in which each Subnet layer is a stock Keras layer whose pruned kernel entries are zero.

    Nested models are baked too. The copy computes the same outputs and loads where iterand_tf is not installed.

    Args:
        model: a built functional or Sequential model; it is not changed.

    Returns:
        The new model, not compiled.

    Raises:
        ValueError: if the model, or a layer with Subnet layers inside, is subclassed, the model is not built, or a
            layer cannot be made again from its configuration.

    Example:

    >>> import iterand_tf, keras
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, sparsity=0.5)])
    >>> [type(layer).__name__ for layer in iterand_tf.bake(model).layers]
    ['Dense']
    """
    if not is_graph(model):
        raise ValueError(
            "bake takes a functional or Sequential model; write a subclassed one as keras.Model(inputs, outputs). "
            f"Received: model={model.name} of class {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if not can_bake(model):
        raise ValueError(
            "bake cannot replace the Subnet layers inside wrappers and subclassed layers; use Subnet layers directly. "
            f"Received: model={model.name}"
        )
    made: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def replacement(layer):
        stock = layer.layer if isinstance(layer, Subnet) else layer
        sampled = isinstance(getattr(stock, "kernel_initializer", None), SampledKernel)
        if stock is layer and not sampled:
            return None
        # A name that loads without this project; the values are copied.
        changes = {"kernel_initializer": "zeros"} if sampled else {}
        made.append((layer, copy_of(stock, name=layer.name, **changes)))
        return made[-1][1]

    baked = clone(model, replacement)
    for layer, stock in made:
        assign_all(stock, layer.baked_values() if isinstance(layer, Subnet) else layer.variables)
    return baked


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What becomes of each layer.

    Args:
        paths: of all layers, by their id.
        methods: of the layers to convert, by their id.
        left: the paths of those that are left as they are, by the reason.
    """

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


def _plan(model, choose, patterns, include, exclude, kernel_names):
    paths = dict(_paths(model)) if is_graph(model) else {id(model): (model.name, model)}
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
    return _Plan({key: path for key, (path, _) in paths.items()}, methods, left)


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
    """(id, (path, layer)) of the layers of a functional or Sequential model, those of models in it too, each once."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            yield from _paths(layer, f"{path}/")
        else:
            yield id(layer), (path, layer)


def _largest_kernel(layer, kernel_names):
    """The shape of the largest variable of a layer that would be masked; None if it has none."""
    names = (kernel_names,) if isinstance(kernel_names, str) else kernel_names
    shapes = [
        tuple(variable.shape)
        for variable in layer.variables
        if len(variable.shape) > 1 and _matches(variable.name, names)
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


def _take_weights(subnet, layer, kernels):
    """Gives a Subnet the weights of the layer that it stands for, but for the kernels that are drawn."""
    if not subnet.subnet_kernels:
        raise ValueError(
            f"the kernels of the layer {layer.name} are frozen inside of it, so they are not masked; exclude it. "
            f"Received: layer of class {type(layer).__name__}"
        )
    for ours, theirs in zip(all_layers(subnet.layer), all_layers(layer), strict=False):
        if ours.trainable != theirs.trainable:
            raise ValueError(
                f"the layer {theirs.name} inside of {layer.name} was frozen after it was made, which a copy does not "
                f"see; set trainable where it is made, or exclude {layer.name}. Received: trainable={theirs.trainable}"
            )
    keeps = subnet.method.trains_kernel if kernels is None else kernels == "keep"
    drawn = set() if keeps else {id(kernel.variable) for kernel in subnet.subnet_kernels}
    assign_all(subnet.layer, layer.variables, but=drawn)
