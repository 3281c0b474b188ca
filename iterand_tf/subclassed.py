"""Subclassed models in which some layers are replaced by Subnets of them, in memory and in `.keras` files.

Such a model has no graph to copy, so a model of its class is made again from its configuration, and the attributes that
hold the layers are changed. The model keeps its class and its `train_step`: it becomes an object of a subclass, which
only adds to the configuration which layers are Subnets.
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import keras

from iterand_tf.cloning import CannotCloneError, copy_weights, is_graph
from iterand_tf.layers import Subnet
from iterand_tf.layers.walk import all_layers, inner_layers, own_variables

# Attributes with which Keras and TensorFlow keep account of layers.
_BOOKKEEPING = frozenset(vars(keras.layers.Layer()))


def units(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """The parts of a subclassed model that are converted or left as a whole, each once, by their paths.

    Layers of Keras are such parts, also those that hold others, such as LSTM. A layer of the user's own is looked into,
    unless it has variables of its own. Where paths would be equal, later ones get a number.
    """
    once = {id(inner): (path, inner) for path, inner in reversed(list(_units(layer, "")))}
    found: dict[str, keras.layers.Layer] = {}
    for path, inner in reversed(once.values()):
        names = itertools.chain([path], (f"{path}_{number}" for number in itertools.count(1)))
        found[next(name for name in names if name not in found)] = inner
    return found


def _units(layer, prefix):
    for inner in inner_layers(layer):
        path = f"{prefix}{inner.name}"
        is_users = not type(inner).__module__.startswith("keras.") and not isinstance(inner, Subnet)
        if is_users and not is_graph(inner) and not own_variables(inner) and any(True for _ in inner_layers(inner)):
            yield from _units(inner, f"{path}/")
        else:
            yield path, inner


def with_subnets(
    model: keras.Model, replacement: Callable[[keras.layers.Layer, keras.layers.Layer], Subnet | None]
) -> keras.Model:
    """A copy of a built subclassed model with Subnets in the places of some of its `units`; or CannotCloneError.

    `replacement` gives for a unit of the model, and the built copy of it with its weights, the Subnet that adopts the
    copy, or None.
    """
    copy = _made_again(model, type(model), model.get_config)
    pairs = zip(units(model).values(), units(copy).values(), strict=True)
    subnets = [replacement(theirs, ours) for theirs, ours in pairs]
    stock: Any = type(copy)
    copy.__class__ = _adapted(stock)
    _put(copy, [subnet for subnet in subnets if subnet is not None])
    return copy


def without_subnets(model: keras.Model) -> keras.Model:
    """A copy of a model that `with_subnets` gave, of its first class, with zeros where kernels are pruned."""
    return _made_again(model, model.stock_class, super(SubclassedWithSubnets, model).get_config)


class SubclassedWithSubnets:
    """What a model of `with_subnets` adds to its class, the `stock_class`."""

    stock_class: type[keras.Model]
    _subnets: dict[str, dict[str, Any]]

    def get_config(self):
        stock = self.stock_class
        return {
            "model": {
                "module": stock.__module__,
                "class_name": stock.__name__,
                "config": super().get_config(),  # type: ignore[misc]
                "registered_name": keras.saving.get_registered_name(stock),
            },
            # By their places: a model that is made again names its layers anew.
            "subnets": {
                str(place): _adopting(layer)
                for place, layer in enumerate(units(self).values())
                if isinstance(layer, Subnet)
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        stock: Any = type(model)
        model.__class__ = _adapted(stock)
        model._subnets = config["subnets"]
        return model

    def build_from_config(self, config):
        # The layers are built as those of the first class, and then adopted.
        super().build_from_config(config)  # type: ignore[misc]
        layers = list(units(self).values())
        _put(self, [Subnet(layers[int(place)], **each) for place, each in self._subnets.items()])


def _adopting(subnet):
    """What a Subnet is made of beside the layer."""
    config = subnet.get_config()
    return {name: config[name] for name in ("name", "trainable", "method", "seed", "kernel_names", "places")}


@functools.cache
def _adapted(stock: Any) -> Any:
    """The subclass of a model's class that knows of its Subnets; files know it by a name that any process finds."""
    cls = type(stock.__name__, (SubclassedWithSubnets, stock), {"stock_class": stock})
    for each in (cls, SubclassedWithSubnets):
        keras.saving.register_keras_serializable("iterand_tf", "SubclassedWithSubnets")(each)
    return cls


_adapted(keras.Model)


def _made_again(model, cls, get_config):
    """A model of a class and a configuration, built and with the weights of a model."""
    try:
        # Keras cannot make a model again whose constructor takes no arguments, though nothing is missing.
        copy = cls.from_config(get_config()) if inspect.signature(cls).parameters else cls()
        copy.build_from_config(model.get_build_config())
        copy.built = True
        copy_weights(model, copy)
    except Exception as error:
        # get_config, from_config and call are the user's own, and fail in their own ways.
        raise CannotCloneError(
            f"the model {model.name} of class {cls.__name__} cannot be made again from its configuration and the "
            "shapes of its inputs; give it a get_config that says all, or write it as keras.Model(inputs, outputs): "
            f"{error}"
        ) from error
    return copy


def _put(model, subnets):
    """Puts Subnets into the attributes that hold the layers that they have adopted, wherever these are."""
    replaced = {id(subnet.layer): subnet for subnet in subnets}
    for owner in list(all_layers(model)):
        held = [layer for layer in inner_layers(owner) if id(layer) in replaced]
        if isinstance(owner, Subnet) or not held:
            continue
        for layer in held:
            owner._tracker.replace_tracked_value("layers", layer, replaced[id(layer)])
        for name, value in [*vars(owner).items(), *vars(owner).get("_modules", {}).items()]:
            if name not in _BOOKKEEPING and (new := _replace_in(value, replaced)) is not value:
                setattr(owner, name, new)


def _replace_in(value, replaced):
    """A value of an attribute with layers replaced; lists and dictionaries are changed in place."""
    if isinstance(value, keras.layers.Layer):
        return replaced.get(id(value), value)
    if isinstance(value, list | dict):
        for key, each in list(enumerate(value) if isinstance(value, list) else value.items()):
            if (new := _replace_in(each, replaced)) is not each:
                value[key] = new
    elif isinstance(value, tuple):
        parts = [_replace_in(each, replaced) for each in value]
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            return tuple(parts)
    return value
