"""to_subnet and prune, which turn a Keras model into a network with masked kernels, and bake, the way back."""

from collections.abc import Callable, Mapping, Sequence

import keras

from iterand_tf import checks, seeds
from iterand_tf.cloning import clone, copy_of, copy_weights, is_graph
from iterand_tf.conversion_plan import Choice, plan_of
from iterand_tf.layers import Subnet, share_kept, subnet_layers
from iterand_tf.layers.subnet import KERNEL_NAMES
from iterand_tf.layers.walk import all_layers
from iterand_tf.methods import Method
from iterand_tf.models.factories import SampledKernel
from iterand_tf.subclassed import SubclassedWithSubnets, with_subnets, without_subnets


def to_subnet(
    model: keras.Model,
    sparsity: float | Mapping[str, Choice] | Callable[[str, tuple[int, ...]], Choice] | None = None,
    method: str | Method = "supermask",
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
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
    `bake` is the way back. Regularizers and constraints of frozen kernels have no effect.

    The copy is of the model's own class where that can be made again: a subclassed model from its configuration, a
    functional one whose constructor takes (inputs, outputs, name). Attributes of a functional model's own class are
    copied where they are numbers, texts or None; set others on the copy.

    Args:
        model: a built model without Subnet layers; it is not changed.
        sparsity: fraction of each kernel that is removed, in [0, 1); None for that of the method, 0.5 by default. Or a
            dictionary from patterns of layers' paths to fractions, method objects or None, of which the first that
            matches counts: `{"head": None, "conv*": MagnitudePruning(0.9), "*": 0.5}`. Or a function of (path, shape of
            the layer's largest kernel) that gives one of these. Layers that no pattern matches, or that get None, stay
            as they are.
        method: `"supermask"`, `"magnitude_pruning"`, `"random_pruning"` or a method object, as in `Subnet`.
        include: a pattern of paths of layers, or several; if there are any, all other layers stay as they are.
        exclude: a pattern of paths of layers that stay as they are, or several.
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
    patterns = [(each,) if isinstance(each, str) else each for each in (include, exclude, kernel_names)]
    plan = plan_of(model, sparsity, method, *patterns)
    if kernels == "redraw" and not is_graph(model) and any(each.trains_kernel for each in plan.methods.values()):
        raise ValueError(
            "kernels='redraw' with a method that trains kernels needs a functional or Sequential model; make a new "
            f"model instead, which starts with new kernels. Received: model={model.name}"
        )
    base = seeds.make_seed(seed)
    made: list[tuple[keras.layers.Layer, Subnet]] = []

    def replacement(layer, copy=None):
        if id(layer) not in plan.methods:
            return None
        seed_of_layer = seeds.fold(base, plan.paths[id(layer)])
        method_of_layer = plan.methods[id(layer)]
        subnet = Subnet(copy or copy_of(layer), method=method_of_layer, seed=seed_of_layer, kernel_names=kernel_names)
        made.append((layer, subnet))
        return subnet

    converted = clone(model, replacement) if is_graph(model) else with_subnets(model, replacement)
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
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    kernel_names: str | Sequence[str] = KERNEL_NAMES,
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
        kernel_names: as in `to_subnet`.
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
    chosen = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
    for method in chosen:
        if isinstance(method, Method) and not method.trains_kernel:
            raise ValueError(
                f"prune keeps trained kernels; pass methods that draw theirs to to_subnet. Received: {method}"
            )
    return to_subnet(
        model,
        sparsity,
        "magnitude_pruning",
        include=include,
        exclude=exclude,
        kernel_names=kernel_names,
        verbose=verbose,
    )


def can_bake(model: keras.Model) -> bool:
    """Whether `bake` takes the model: one of `to_subnet`, or one whose Subnet layers stand in a graph of layers."""
    if not is_graph(model):
        return isinstance(model, SubclassedWithSubnets)
    return all(
        can_bake(layer) if isinstance(layer, keras.Model) else isinstance(layer, Subnet)
        for layer in model.layers
        if subnet_layers(layer)
    )


def bake(model: keras.Model) -> keras.Model:
    """A copy of a model in which each Subnet layer is a stock Keras layer whose pruned kernel entries are zero.

    Nested models are baked too. The copy computes the same outputs and loads where iterand_tf is not installed.

    Args:
        model: a built functional or Sequential model, or any that `to_subnet` gave; it is not changed.

    Returns:
        The new model, not compiled.

    Raises:
        ValueError: if the model is another subclassed model or has Subnet layers inside of one, it is not built, or a
            layer cannot be made again from its configuration.

    Example:

    >>> import iterand_tf, keras
    >>> model = keras.Sequential([keras.Input((4,)), iterand_tf.SubnetDense(2, sparsity=0.5)])
    >>> [type(layer).__name__ for layer in iterand_tf.bake(model).layers]
    ['Dense']
    """
    if not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if not can_bake(model):
        raise ValueError(
            "bake takes models of to_subnet, and functional and Sequential models whose Subnet layers are not inside "
            f"other layers. Received: model={model.name} of class {type(model).__name__}"
        )
    if isinstance(model, SubclassedWithSubnets):
        return without_subnets(model)
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
        copy_weights(layer, stock)
    return baked


def _take_weights(subnet, layer, kernels):
    """Gives a Subnet the weights of the layer that it stands for, but for the kernels that are drawn."""
    for ours, theirs in zip(all_layers(subnet.layer), all_layers(layer), strict=False):
        if ours.trainable != theirs.trainable:
            raise ValueError(
                f"the layer {theirs.name} inside of {layer.name} was frozen after it was made, which a copy does not "
                f"see; set trainable where it is made, or exclude {layer.name}. Received: trainable={theirs.trainable}"
            )
    keeps = subnet.method.trains_kernel if kernels is None else kernels == "keep"
    drawn = set() if keeps else {id(kernel.variable) for kernel in subnet.subnet_kernels}
    copy_weights(layer, subnet.layer, but=drawn)
