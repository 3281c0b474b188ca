"""Subnet, which makes a subnetwork of any Keras layer."""

import dataclasses
import fnmatch
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from iterand_tf import checks, rerandomization, seeds
from iterand_tf.layers.call_specifications import (
    specifications,
    specifications_from_json,
    specifications_to_json,
)
from iterand_tf.layers.masked_variable import is_masked, reading_as, reads_as
from iterand_tf.layers.old_files import refuse_old_config
from iterand_tf.layers.other_kernels import take_over
from iterand_tf.layers.subnet_kernel import SubnetKernel
from iterand_tf.layers.walk import all_layers, own_variables
from iterand_tf.masks import GLOBAL
from iterand_tf.methods import Method, resolve

KERNEL_NAMES = ("*kernel",)


@keras.saving.register_keras_serializable(package="iterand_tf")
class Subnet(keras.layers.Wrapper):
    """Makes a subnetwork of any Keras layer: the layer computes with `kernel * mask`.

    With the default method, `"supermask"`, the layer's kernels are drawn at random and frozen. Next to each kernel
    there are scores, which the optimizer trains, and the mask is 1 for the entries with the highest scores. All else is
    the layer's own: its call arguments, masks, `training`, biases, statistics, dropout and losses. The pruning methods
    train the kernels themselves.

    The layer may be a recurrent or an attention layer, a block of layers such as a `keras.Sequential`, or a layer of
    your own. Subnet adopts it, as `keras.layers.TimeDistributed` does: the layer becomes a part of the Subnet, and is
    no longer used elsewhere. `to_subnet` converts a whole model and leaves it as it is. Wrap an RNN, not its cell.

    Args:
        layer: a Keras layer, built or not. If it is built, a method that freezes kernels draws them anew, and the
            pruning methods keep them.
        sparsity: fraction of each kernel that is removed, in [0, 1); None for that of the method, 0.5 by default.
            `set_sparsity` changes it.
        method: `"supermask"`, `"magnitude_pruning"`, `"random_pruning"`, or a method object with parameters of its own,
            such as `Supermask(weight_distribution="kaiming_uniform")`.
        seed: whole number of at least 0, or None for one from Python's generator, which `keras.utils.set_random_seed`
            controls. All draws are functions of the seed, the layer's name and the kernel's place in it. Pass a `name`
            where draws must not depend on how many layers the process has named before.
        kernel_names: patterns of the names of the variables that are masked. By default all that end in "kernel"; add
            `"embeddings"` for those of Embedding layers.
        **kwargs: `name` (that of `layer` by default), `dtype` and `trainable`, as in every Keras layer.

    Input shape:
        That of the layer.

    Output shape:
        That of the layer.

    Attributes:
        layer: the layer that computes.
        method: the method object.
        subnet_kernels: a `SubnetKernel` for each kernel, in the layer's order; empty until it is built.

    Raises:
        ValueError: if an argument is out of its range, the layer holds Subnet layers already, or, when it is built, it
            has no kernel, or a kernel does not fit the mask or is that of another Subnet.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 3; docs/methods.md for the methods and masks.

    Example:

    >>> import keras
    >>> from iterand_tf import Subnet
    >>> layer = Subnet(keras.layers.LSTM(4), sparsity=0.5, seed=0)
    >>> layer(keras.ops.ones((2, 5, 3))).shape
    TensorShape([2, 4])
    >>> [(kernel.name, kernel.num_weights, kernel.num_kept) for kernel in layer.subnet_kernels]
    [('kernel', 48, 24), ('recurrent_kernel', 64, 32)]
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        sparsity: float | None = None,
        method: str | Method = "supermask",
        *,
        seed: int | None = None,
        kernel_names: str | Sequence[str] = KERNEL_NAMES,
        **kwargs: Any,
    ):
        if not isinstance(layer, keras.layers.Layer):
            raise checks.ArgumentError("layer", "a Keras layer", layer)
        if any(isinstance(inner, Subnet) for inner in all_layers(layer)):
            raise checks.ArgumentError("layer", "one without Subnet layers inside", layer)
        if type(self) is Subnet:
            kwargs.setdefault("name", layer.name)
        # Where the kernels stand among the layer's variables, once that is known; a configuration knows it.
        places = kwargs.pop("places", None)
        super().__init__(layer, **{"dtype": layer.dtype_policy, "trainable": layer.trainable} | kwargs)
        self.method = resolve(method, sparsity)
        self.seed = seeds.make_seed(seed)
        self.kernel_names = (kernel_names,) if isinstance(kernel_names, str) else tuple(kernel_names)
        self.subnet_kernels: list[SubnetKernel] = []
        self._places: list[int] | None = places
        self._specs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.supports_masking = layer.supports_masking
        if _is_built(layer):
            self._adopt()

    @property
    def sparsity(self) -> float:
        """Fraction of each kernel that is removed: as it was last set, or as loaded weights have it."""
        kernels = self.subnet_kernels
        if self.method.mask == GLOBAL or all(kernel.num_kept == kernel.num_kept_of(self.method) for kernel in kernels):
            return self.method.sparsity
        return 1 - sum(kernel.num_kept for kernel in kernels) / sum(kernel.num_weights for kernel in kernels)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.built:
            # The layer's own `build` may want several shapes; a call on specifications finds them.
            self._build_on(*specifications((args, kwargs)))
        elif self._specs is None:
            # A layer that was built before is built on these when the Subnet is made again.
            self._specs = specifications((args, kwargs))
        return super().__call__(*args, **kwargs)

    def build(self, input_shape):
        """Builds a layer of one input; one of several is built when it is called."""
        self._build_on((keras.KerasTensor(input_shape, self.input_dtype),), {})

    def call(self, *args, **kwargs):
        """Calls the layer with its effective kernels, but for those that a scope outside gives already."""
        kernels = [kernel for kernel in self.subnet_kernels if reads_as(kernel.variable) is None]
        with reading_as({id(kernel.variable): kernel.value_for_call() for kernel in kernels}):
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
        # On PyTorch, layers that are attributes are found by this method of torch's.
        of_backend = getattr(super(), "__getattr__", None)
        if of_backend is not None:
            try:
                return of_backend(name)
            except AttributeError:
                pass
        # What is asked of the layer, as keras.layers.Bidirectional asks for `return_sequences`, the inner one answers.
        if name.startswith("_") or name == "layer":
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
            replacement: gives the values that re-drawn entries take, see `iterand_tf.rerandomization`.

        Returns:
            How many entries have another value than before.
        """
        frozen = [kernel for kernel in self.subnet_kernels if kernel.is_frozen and self.trainable]
        return sum(kernel.rerandomize(step, rate, replacement) for kernel in frozen)

    def check_sparsity(self, sparsity: float) -> Method:
        """The method at another sparsity.

        Raises:
            ValueError: if the sparsity is out of its range, or a kernel's mask cannot have it.
        """
        method = dataclasses.replace(self.method, sparsity=sparsity)
        for kernel in self.subnet_kernels:
            kernel.num_kept_of(method)
        return method

    def set_sparsity(self, sparsity: float) -> None:
        """Changes the fraction of each kernel that is removed, from the next call on and without a new trace.

        `SparsityScheduler` does it to a whole model in training.

        Args:
            sparsity: in [0, 1).

        Raises:
            ValueError: as `check_sparsity`; nothing has changed then.
        """
        self.method = self.check_sparsity(sparsity)
        for kernel in self.subnet_kernels:
            kernel.set_method(self.method)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "method": keras.saving.serialize_keras_object(self.method),
            "seed": self.seed,
            "kernel_names": self.kernel_names,
            "places": self._places,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Subnet":
        refuse_old_config(config)
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"), custom_objects)
        own = {"name", "trainable", "dtype", "places", *inspect.signature(cls).parameters}
        # Bidirectional makes its second layer of the first one's configuration, with `go_backwards` changed.
        of_layer = {name: config.pop(name) for name in list(config) if name not in own}
        if of_layer:
            layer = type(layer).from_config(layer.get_config() | of_layer)
        return cls(layer, **config)

    def get_build_config(self) -> dict[str, Any] | None:
        if self._specs is None:
            return (self.built and {"layer": self.layer.get_build_config()}) or None
        return {"specs": specifications_to_json(self._specs)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        if "specs" in config:
            args, kwargs = specifications_from_json(config["specs"])
            self._build_on(tuple(args), kwargs)
        else:
            self.layer.build_from_config(config["layer"])
            self._adopt()

    def _build_on(self, args, kwargs):
        if not _is_built(self.layer):
            self.layer(*args, **kwargs)
        self._specs = (args, kwargs)
        self._adopt()

    def _adopt(self):
        """Finds the kernels among the variables of the built layer, and makes what belongs to each."""
        self.built = True
        if self.subnet_kernels:
            return
        for inner in all_layers(self.layer):
            take_over(inner)
        found = list(self._kernel_variables())
        if not found:
            raise ValueError(
                f"the layer {self.layer.name} has no trainable variable of two axes or more whose name matches "
                f"{' or '.join(self.kernel_names)}; pass other kernel_names, or use the layer as it is. "
                f"Received: variables={[variable.name for variable in self.layer.variables]}"
            )
        places = {id(variable): place for place, variable in enumerate(self.layer.variables)}
        self._places = [places[id(variable)] for _, variable in found]
        for number, (owner, variable) in enumerate(found):
            identity = (self.name, number) if number else (self.name,)

            def add_weight(suffix, shape, initializer, dtype, trainable, variable=variable, number=number):
                name = suffix if variable.name == "kernel" else f"{variable.name}_{suffix}"
                weight = self.add_weight(shape, initializer, dtype, trainable=trainable, name=name, autocast=False)
                # tf.train.Checkpoint finds what is an attribute.
                setattr(self, f"_{suffix}_{number}", weight)
                return weight

            kernel = SubnetKernel(variable, owner, self.method, self.seed, identity, add_weight)
            self.subnet_kernels.append(kernel)

    def _kernel_variables(self) -> Iterator[tuple[keras.layers.Layer, keras.Variable]]:
        """(owner, variable) of each kernel: those that the configuration names, or else those of matching names."""
        places = {id(variable): place for place, variable in enumerate(self.layer.variables)}
        for owner in all_layers(self.layer):
            for variable in own_variables(owner):
                place = places.pop(id(variable), None)
                # A variable that two layers share is looked at once.
                if place is not None and (self._is_kernel(variable) if self._places is None else place in self._places):
                    yield owner, variable

    def _is_kernel(self, variable):
        if len(variable.shape) < 2 or not any(fnmatch.fnmatchcase(variable.name, name) for name in self.kernel_names):
            return False
        # Inside a layer that is trained, what is frozen stays as it is. A kernel of another Subnet is refused later.
        return variable.trainable or is_masked(variable) or not self.layer.trainable


def _is_built(layer):
    return all(inner.built for inner in all_layers(layer))


def subnet_layers(model: keras.layers.Layer) -> list[Subnet]:
    """All Subnet layers of a model or layer, nested ones included, each once, in the model's order.

    Example:

    >>> import iterand_tf
    >>> model = keras.Sequential([keras.Sequential([iterand_tf.SubnetDense(2)]), iterand_tf.SubnetDense(1)])
    >>> len(subnet_layers(model))
    2
    """
    return [layer for layer in all_layers(model) if isinstance(layer, Subnet)]


def built_subnet_layers(model: keras.layers.Layer) -> list[Subnet]:
    """Those of `subnet_layers` that have been built: a layer that no call has used has no kernel."""
    return [layer for layer in subnet_layers(model) if layer.built]
