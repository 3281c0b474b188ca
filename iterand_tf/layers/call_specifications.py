"""What a layer was built on: its call arguments with a specification in the place of each tensor."""

from typing import Any

import keras


def specifications(arguments: Any) -> Any:
    """The arguments of a call, in their structure, with a `keras.KerasTensor` for each tensor or array."""
    return keras.tree.map_structure(_specification, arguments)


def specifications_to_json(arguments: Any) -> Any:
    """Specifications as dictionaries of shape and dtype, for a configuration."""
    return keras.tree.map_structure(
        lambda value: (
            {"shape": list(value.shape), "dtype": value.dtype} if isinstance(value, keras.KerasTensor) else value
        ),
        arguments,
    )


def specifications_from_json(value: Any) -> Any:
    """The inverse of `specifications_to_json`; tuples have become lists."""
    if isinstance(value, dict) and value.keys() == {"shape", "dtype"}:
        return keras.KerasTensor(tuple(value["shape"]), value["dtype"])
    if isinstance(value, dict):
        return {name: specifications_from_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [specifications_from_json(each) for each in value]
    return value


def _specification(value):
    if isinstance(value, keras.KerasTensor) or keras.ops.is_tensor(value) or hasattr(value, "__array__"):
        return keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))
    return value
