"""Subnet, which makes a subnetwork of any Keras layer."""

import dataclasses
import fnmatch
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from iterand_tf import checks, masks, rerandomization, seeds
from iterand_tf.layers.fan_in import fan_in, reduction_axes
from iterand_tf.layers.subnet_kernel import SubnetKernel, given_values, make_replaceable
from iterand_tf.layers.subnet_options import OPTION_NAMES, SubnetOptions
from iterand_tf.layers.walk import all_layers
from iterand_tf.layers.weights_made_by import weights_made_by

KERNEL_NAMES = ("*kernel",)


@keras.saving.register_keras_serializable(package="iterand_tf")
class Subnet(keras.layers.Layer):
    """Any Keras layer, which chooses entries of its frozen random kernels instead of training them.

    Subnet takes a layer that has not been trained and makes one like it, with every kernel frozen and drawn at random.
    Beside each kernel it has scores, which the optimizer trains. The layer computes with `kernel * mask`, where the
    mask is 1 for the entries with the highest scores. All else is the layer's own: its call arguments, masks,
    `training`, biases, statistics, dropout and losses.

    The layer may be a recurrent or an attention layer, a block of layers such as a `keras.Sequential`, or a layer of
    your own. It must be possible to make it again from its configuration (`get_config`).

    Args:
        layer: a Keras layer. It is not changed: Subnet makes a new one from its configuration.
        sparsity: fraction of each kernel that is removed, in [0, 1). `set_sparsity` changes it.
        method: `"iterand"` chooses from a frozen kernel by trained scores; edge-popup is the same without re-draws.
            `"magnitude_pruning"` trains the kernel and keeps its largest entries, `"random_pruning"` trains it and
            keeps random ones.
        mask: `"per_kernel"` keeps the highest scores of each kernel. `"N:M"`, such as `"2:4"`, keeps N of every M
            neighbouring inputs of an output; the sparsity is then `1 - N / M`. (`"global"` is of a whole model: give it
            to `to_subnet` or `models.SubnetFactory`.)
        min_per_channel: each output keeps at least so many inputs, a whole number of at least 0.
        binarize: whether to compute with `gain * sign(kernel)`, where the gain is the mean magnitude of the kept
            entries (Diffenderfer and Kailkhura, ICLR 2021, section 3).
        score_transform: what is ranked: `"identity"` for the signed scores or `"abs"` for their magnitudes.
        weight_distribution: distribution of the kernels, one of `iterand_tf.distributions.NAMES`.
        weight_scale: factor on the kernels, above 0.
        score_distribution: distribution of the first scores, one of the same names.
        score_scale: factor on the first scores, above 0.
        seed: whole number of at least 0, or None for one from Python's generator. All draws are functions of the seed,
            the layer's name and the kernel's place in it.
        kernel_names: patterns of the names of the variables that are chosen from. By default all that end in "kernel";
            add `"embeddings"` for those of Embedding layers. Biases and gains are trained as usual.
        **kwargs: `name` (that of `layer` by default), `dtype` and `trainable`, as in every Keras layer.

    Input shape:
        That of the layer.

    Output shape:
        That of the layer.

    Attributes:
        layer: the layer that computes.
        masks_kernels: whether calls mask the kernels; an exporter that gives masked ones sets it to False.
        subnet_kernels: a `SubnetKernel` for each kernel, in the order in which the layer makes them; empty until it is
            built.

    Raises:
        ValueError: if an argument is out of its range, the layer holds Subnet layers already, or, when it is built, a
            kernel does not fit the mask.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 3; docs/methods.md for the other methods and masks.

    Example:

    >>> import keras
    >>> from iterand_tf import Subnet
    >>> layer = Subnet(keras.layers.LSTM(4), sparsity=0.5, seed=0)
    >>> layer(keras.ops.ones((2, 5, 3))).shape
    TensorShape([2, 4])
    >>> [(kernel.name, kernel.num_weights, kernel.num_kept) for kernel in layer.subnet_kernels]
    [('kernel', 48, 24), ('recurrent_kernel', 64, 32)]
    """

    sparsity: float
    method: str
    mask: str
    min_per_channel: int
    binarize: bool
    score_transform: str
    weight_distribution: str
    weight_scale: float
    score_distribution: str
    score_scale: float

    def __init__(
        self,
        layer: keras.layers.Layer,
        *,
        sparsity: float = SubnetOptions.sparsity,
        method: str = SubnetOptions.method,
        mask: str = SubnetOptions.mask,
        min_per_channel: int = SubnetOptions.min_per_channel,
        binarize: bool = SubnetOptions.binarize,
        score_transform: str = SubnetOptions.score_transform,
        weight_distribution: str = SubnetOptions.weight_distribution,
        weight_scale: float = SubnetOptions.weight_scale,
        score_distribution: str = SubnetOptions.score_distribution,
        score_scale: float = SubnetOptions.score_scale,
        seed: int | None = None,
        kernel_names: Sequence[str] = KERNEL_NAMES,
        **kwargs: Any,
    ):
        if not isinstance(layer, keras.layers.Layer):
            raise checks.ArgumentError("layer", "a Keras layer", layer)
        if any(isinstance(inner, Subnet) for inner in all_layers(layer)):
            raise checks.ArgumentError("layer", "one without Subnet layers inside", layer)
        options = SubnetOptions(
            sparsity=sparsity,
            method=method,
            mask=mask,
            min_per_channel=min_per_channel,
            binarize=binarize,
            score_transform=score_transform,
            weight_distribution=weight_distribution,
            weight_scale=weight_scale,
            score_distribution=score_distribution,
            score_scale=score_scale,
        )
        if mask == masks.GLOBAL:
            raise ValueError("mask='global' is of a whole model; give it to to_subnet or models.SubnetFactory.")
        if type(self) is Subnet:
            kwargs.setdefault("name", layer.name)
        super().__init__(**{"dtype": layer.dtype_policy, "trainable": layer.trainable} | kwargs)
        for name in OPTION_NAMES:
            setattr(self, name, getattr(options, name))
        self._options = options
        self.masks_kernels = True
        self.seed = seeds.make_seed(seed)
        self.kernel_names = tuple(kernel_names)
        self.subnet_kernels: list[SubnetKernel] = []
        self._specs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._created: list[keras.Variable] = []
        with weights_made_by(self._make_weight):
            self.layer = _from_config(layer, self.name, self.dtype_policy)
        self.supports_masking = self.layer.supports_masking

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.built:
            # The layer's own `build` may want several shapes; a call on specifications finds them.
            self._build_on(*keras.tree.map_structure(_specification, (args, kwargs)))
        return super().__call__(*args, **kwargs)

    def build(self, input_shape):
        """Builds a layer of one input; one of several is built when it is called."""
        self._build_on((keras.KerasTensor(input_shape, self.input_dtype),), {})

    def call(self, *args, **kwargs):
        """Calls the layer with its effective kernels."""
        chosen = self.subnet_kernels if self.masks_kernels else []
        with given_values({id(kernel.variable): kernel.value_for_call() for kernel in chosen}):
            return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask=None):
        if isinstance(previous_mask, tuple) and len(previous_mask) == 1:
            # Keras takes the positional arguments of `call` for one structure.
            (inputs,), (previous_mask,) = inputs, previous_mask
        return self.layer.compute_mask(inputs, previous_mask)

    def __getattr__(self, name: str) -> Any:
        # What is asked of the layer, as keras.layers.Bidirectional asks for `return_sequences`, the inner one answers.
        if name.startswith("_") or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.layer, name)

    def rerandomize(
        self, step: int, rate: float, replacement: rerandomization.Replacement = rerandomization.fresh
    ) -> int:
        """Re-draws each pruned kernel entry with probability `rate`.

        Every call is a new draw, which each kernel's `num_draws` counts. Call it between steps, never inside `call`. A
        layer that is not trainable keeps its kernels, and so does one whose kernels are trained.

        Args:
            step: the training step after which this happens; kept in each kernel's `rerandomized_at`.
            rate: probability in [0, 1].
            replacement: gives the values that re-drawn entries take, as a schedule's `replacement` does.

        Returns:
            How many entries have another value than before.
        """
        frozen = [kernel for kernel in self.subnet_kernels if kernel.is_frozen and self.trainable]
        return sum(kernel.rerandomize(step, rate, replacement) for kernel in frozen)

    def set_sparsity(self, sparsity: float) -> None:
        """Changes the fraction of each kernel that is removed, from the next call on and without a new trace.

        `SparsitySchedule` does it to a whole model in training.

        Args:
            sparsity: in [0, 1).

        Raises:
            ValueError: if it is out of its range, or the mask has no other sparsity.
        """
        self._options = dataclasses.replace(self._options, sparsity=sparsity)
        self.sparsity = sparsity
        for kernel in self.subnet_kernels:
            kernel.set_options(self._options)

    def to_stock(self) -> keras.layers.Layer:
        """A built layer of the inner layer's class that computes the same outputs without masks.

        Raises:
            ValueError: if this layer has not been built.
        """
        twin, made = self._twin()
        baked = {id(kernel.variable): kernel.baked() for kernel in self.subnet_kernels}
        for variable, source in self._pairs(twin, made):
            variable.assign(baked.get(id(source), source))
        _finalize(twin)
        return twin

    def take_weights(self, layer: keras.layers.Layer, with_kernels: bool) -> None:
        """Assigns the weights of a layer to the inner layer, which is one like it.

        Args:
            layer: a built layer of the inner layer's class and configuration.
            with_kernels: whether to take its kernels too.

        Raises:
            ValueError: if this layer has not been built, or the other one has other weights.
        """
        twin, made = self._twin()
        shapes, others = ([tuple(variable.shape) for variable in each.variables] for each in (layer, twin))
        if shapes != others:
            raise ValueError(
                f"the weights of the layer {layer.name} are not those that a layer of its configuration makes; give it "
                f"a get_config that says all. Received: shapes={shapes}, and of the new layer {others}"
            )
        # Layers of one configuration list their variables in one order; that in which the Subnet lists them is another.
        sources = {id(ours): theirs for ours, theirs in zip(twin.variables, layer.variables, strict=True)}
        chosen = set() if with_kernels else {id(kernel.variable) for kernel in self.subnet_kernels}
        for ours, variable in self._pairs(twin, made):
            if id(variable) not in chosen:
                variable.assign(sources[id(ours)])
        _finalize(self.layer)

    def _twin(self):
        """A layer like the inner one without masks, built, and its weights in the order in which it made them."""
        if self._specs is None:
            raise ValueError(f"call the layer on an input, or build it, before this. Received: layer={self.name}")
        made: list[keras.Variable] = []

        def make(add_weight, layer, name, arguments):
            made.append(add_weight(layer, **arguments))
            return made[-1]

        with weights_made_by(make):
            twin = _from_config(self.layer, self.name, self.dtype_policy)
            _call_on(twin, self._specs)
        return twin, made

    def _pairs(self, twin, made):
        """Pairs of a twin's variable and the inner layer's; those that no add_weight has made come last."""
        recorded = {id(variable) for variable in (*made, *self._created)}
        rest = ([each for each in layer.variables if id(each) not in recorded] for layer in (twin, self.layer))
        yield from zip(made, self._created, strict=True)
        yield from zip(*rest, strict=True)

    def get_config(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in OPTION_NAMES}
        return super().get_config() | options | {
            "layer": keras.saving.serialize_keras_object(self.layer),
            "seed": self.seed,
            "kernel_names": self.kernel_names,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Subnet":
        own = {"name", "trainable", "dtype", *inspect.signature(cls).parameters}
        layer = keras.saving.deserialize_keras_object(config["layer"])
        # Bidirectional makes its second layer of the first one's configuration, with `go_backwards` changed.
        of_layer = {name: value for name, value in config.items() if name not in own}
        if of_layer:
            layer = type(layer).from_config(layer.get_config() | of_layer)
        return cls(**{name: value for name, value in config.items() if name in own} | {"layer": layer})

    def get_build_config(self) -> dict[str, Any] | None:
        if self._specs is None:
            return None
        return {"specs": keras.tree.map_structure(_to_json, self._specs)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        args, kwargs = _from_json(config["specs"])
        self._build_on(tuple(args), kwargs)

    def _build_on(self, args, kwargs):
        with weights_made_by(self._make_weight):
            _call_on(self.layer, (args, kwargs))
        _finalize(self.layer)
        self._specs = (args, kwargs)
        self.built = True

    def _make_weight(self, add_weight, layer, name, arguments):
        """Makes a weight of the inner layer: a frozen kernel, with what belongs to it, or any other."""
        is_kernel = (
            name is not None
            and any(fnmatch.fnmatchcase(name, pattern) for pattern in self.kernel_names)
            and arguments.get("trainable", True)
            and layer.trainable
            and len(arguments["shape"]) > 1
        )
        if not is_kernel:
            self._created.append(add_weight(layer, **arguments))
            return self._created[-1]
        shape = tuple(arguments["shape"])
        if None in shape:
            raise ValueError(f"the number of input features must be known. Received: kernel shape={shape}")
        number = len(self.subnet_kernels)
        identity = (self.name, number) if number else (self.name,)
        inputs, axes = fan_in(layer, name, shape), reduction_axes(layer, name, shape)
        kernel = SubnetKernel(name, shape, layer, inputs, axes, self._options, self.seed, identity)
        own_arguments = {"initializer": lambda shape, dtype=None: ops.cast(kernel.draw(0), dtype), "autocast": False}
        if kernel.is_frozen:
            own_arguments |= {"trainable": False, "regularizer": None, "constraint": None}
        kernel.variable = make_replaceable(add_weight(layer, **arguments | own_arguments))
        self._created.append(kernel.variable)

        def own(suffix, shape, initializer, dtype, trainable=False):
            weight_name = suffix if name == "kernel" else f"{name}_{suffix}"
            return add_weight(
                self, name=weight_name, shape=shape, initializer=initializer, dtype=dtype, trainable=trainable,
                autocast=False,
            )  # fmt: skip

        if self.method != "magnitude_pruning":
            first = lambda shape, dtype=None: kernel.draw_scores()  # noqa: E731
            kernel.scores = own("scores", shape, first, "float32", trainable=kernel.is_frozen)
        kept = masks.num_kept(kernel.num_weights, self.sparsity)
        kernel.kept = own("num_kept", (), lambda shape, dtype=None: ops.full(shape, kept, dtype), "int32")
        kernel.num_draws = own("num_draws", (), "ones", "int32")
        kernel.rerandomized_at = own("rerandomized_at", (), "zeros", "int32")
        self.subnet_kernels.append(kernel)
        return kernel.variable


def _from_config(layer, name, policy):
    changes = {"name": name, "dtype": keras.dtype_policies.serialize(policy)}
    made = type(layer).from_config(_unbuilt(layer.get_config()) | changes)
    if made.dtype_policy != policy:
        # A model takes the global policy, whatever its configuration says.
        made.dtype_policy = policy
    return made


def _unbuilt(config):
    """A configuration without what would build layers inside: they are built by the call on specifications."""
    if isinstance(config, dict):
        return {name: _unbuilt(value) for name, value in config.items() if name != "build_config"}
    return [_unbuilt(value) for value in config] if isinstance(config, list) else config


def _call_on(layer, specs):
    """Builds a layer by a call on specifications, which computes nothing."""
    args, kwargs = keras.tree.map_structure(_specification, specs)
    layer(*args, **kwargs)


def _finalize(layer):
    """Lets preprocessing layers compute what they use from their weights; in a call on specifications they cannot."""
    for each in all_layers(layer):
        if hasattr(each, "finalize_state"):
            each.finalize_state()


def _specification(value):
    if isinstance(value, keras.KerasTensor) or keras.ops.is_tensor(value) or hasattr(value, "__array__"):
        return keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))
    return value


def _to_json(value):
    if isinstance(value, keras.KerasTensor):
        return {"shape": list(value.shape), "dtype": value.dtype}
    return value


def _from_json(value):
    if isinstance(value, dict) and value.keys() == {"shape", "dtype"}:
        return keras.KerasTensor(tuple(value["shape"]), value["dtype"])
    if isinstance(value, dict):
        return {name: _from_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_from_json(each) for each in value]
    return value


def subnet_layers(model: keras.layers.Layer) -> Iterator[Subnet]:
    """All Subnet layers of a model or layer, nested ones included, each once, in the model's order.

    Example:

    >>> import iterand_tf
    >>> model = keras.Sequential([keras.Sequential([iterand_tf.SubnetDense(2)]), iterand_tf.SubnetDense(1)])
    >>> len(list(subnet_layers(model)))
    2
    """
    return (layer for layer in all_layers(model) if isinstance(layer, Subnet))


def built_subnet_layers(model: keras.layers.Layer) -> Iterator[Subnet]:
    """Those of `subnet_layers` that have been built: a layer that no call has used has no kernel.

    Example:

    >>> import iterand_tf
    >>> len(list(built_subnet_layers(keras.Sequential([iterand_tf.SubnetDense(2)]))))
    0
    """
    return (layer for layer in subnet_layers(model) if layer.built)
