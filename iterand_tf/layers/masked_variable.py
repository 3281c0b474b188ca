"""The variable that reads as `kernel * mask` inside a call of its Subnet, and the scope that says when.

A layer reads its kernel from an attribute of its own. So that any layer computes with the effective kernel, and saving
still sees the kernel itself, what the variable reads as depends on the scope.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

# Replicas of a distribution strategy are traced in threads of their own, and in turns.
_scope = threading.local()


@contextlib.contextmanager
def reading_as(values: dict[int, Any]) -> Iterator[None]:
    """Within the scope masked variables, by their ids, read as `values`; the outermost scope that names one decides."""
    before = getattr(_scope, "values", {})
    _scope.values = values | before
    try:
        yield
    finally:
        _scope.values = before


def reads_as(variable: keras.Variable) -> Any:
    """The tensor that a variable reads as in the present scope; None for its own value."""
    return getattr(_scope, "values", {}).get(id(variable))


def make_masked(variable: keras.Variable, is_frozen: bool) -> None:
    """Lets `reading_as` say what a variable reads as, which stays the same object; ValueError if it is masked already.

    With `is_frozen` it stays untrained, also when a layer or model that holds it is unfrozen.
    """
    if is_masked(variable):
        raise ValueError(
            "the layer shares a kernel with a layer that is in another Subnet; use one Subnet in both places, or leave "
            f"one of the layers out. Received: variable={variable.path}"
        )
    cls: Any = type(variable)
    variable.__class__ = _masked(cls, is_frozen)
    # Scores are ranked in float32, so the variable itself reads as float32 under mixed precision too.
    variable._autocast = False
    if is_frozen:
        variable.trainable = False


def is_masked(variable: keras.Variable) -> bool:
    """Whether a Subnet masks the variable already."""
    return isinstance(variable, _MaskedVariable)


def initialize(variable: keras.Variable, draw: Callable[[], Any]) -> None:
    """Gives a variable its first value, now or, where Keras builds a model without computing, when it has one."""
    if variable._value is None:
        variable._initializer = lambda shape, dtype: draw()
    else:
        variable.assign(draw())


@functools.cache
def _masked(base: Any, is_frozen: bool) -> Any:
    return type("MaskedVariable", (_FrozenVariable, base) if is_frozen else (_MaskedVariable, base), {})


class _MaskedVariable:
    path: str

    @property
    def value(self):
        given = reads_as(self)
        return super().value if given is None else given  # type: ignore[misc]

    @property
    def dtype(self):
        given = reads_as(self)
        dtype = super().dtype if given is None else given.dtype  # type: ignore[misc]
        return keras.backend.standardize_dtype(dtype)

    def assign(self, value):
        if reads_as(self) is not None:
            raise ValueError(
                "a layer inside a Subnet assigns to its kernel while it is called, but there the kernel is computed "
                "from the mask; put the Subnet inside, as in SpectralNormalization(Subnet(layer)). "
                f"Received: variable={self.path}"
            )
        return super().assign(value)  # type: ignore[misc]


class _FrozenVariable(_MaskedVariable):
    @property
    def trainable(self):
        return False

    @trainable.setter
    def trainable(self, value):
        # Keras sets it on all variables of a layer that is frozen or unfrozen.
        super(_FrozenVariable, type(self)).trainable.fset(self, False)  # type: ignore[misc]
