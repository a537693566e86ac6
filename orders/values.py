"""Frozen values, made fast."""

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


def quick(value_class: Callable[Parameters, Value], *, kw_only: bool = True) -> Callable[Parameters, Value]:
    """Makes the values of a frozen, slotted dataclass without `__post_init__` in a third to half of the time.

    A frozen class sets every field through `object.__setattr__`. Here the fields are set while the new object belongs
    to a subclass that allows it; then it becomes what it was asked to be. For places that make tens of thousands.
    """
    frozen: Any = value_class

    def become(draft: Any) -> None:
        draft.__class__ = frozen

    ways_to_set: Any = make_dataclass(
        frozen.__name__, [_copy(each) for each in fields(frozen)], kw_only=kw_only, namespace={"__post_init__": become}
    )
    allowed = {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    draft: Any = type(
        frozen.__name__, (frozen,), {**allowed, "__init__": ways_to_set.__init__, "__post_init__": become}
    )
    return draft  # type: ignore[no-any-return]


def _copy(original: Field[Any]) -> tuple[str, Any, Any]:
    if original.default is not MISSING:
        return original.name, original.type, field(default=original.default)
    if original.default_factory is not MISSING:
        return original.name, original.type, field(default_factory=original.default_factory)
    return original.name, original.type, field()
