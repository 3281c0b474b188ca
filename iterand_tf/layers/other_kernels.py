"""What Keras can do to a layer that would put another kernel in the place of the masked one."""

import functools
from typing import Any, NoReturn

import keras


def take_over(layer: keras.layers.Layer) -> None:
    """Keeps a layer inside a Subnet from computing with another kernel than the masked one.

    A layer that is quantized or has LoRA enabled is refused.
    """
    if getattr(layer, "lora_enabled", False):
        _refuse("enable_lora", layer.name)
    if getattr(layer, "quantization_mode", None) is not None:
        _refuse("quantize", layer.name)
    for method in ("enable_lora", "quantize"):
        if hasattr(type(layer), method):
            setattr(layer, method, functools.partial(_refuse, method, layer.name))
    if layer._remat_mode is not None and layer._remat_mode.mode != "activations":
        # The Subnet is computed again as a whole: inside, the masked kernel would be a constant without a gradient.
        layer._remat_mode = None


def _refuse(method: str, name: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise ValueError(
        f"{method} would replace the masked kernel of a Subnet; call it on bake(model), which has stock layers. "
        f"Received: layer={name}"
    )
