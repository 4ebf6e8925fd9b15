"""Classes as ``dataclass(frozen=True, slots=True)`` makes them, at a tenth of the time that this takes to import.

There are so many event types that this was 20 ms of every program that is traced.  So all of them share their methods,
and the initializer of each is compiled when its first object is made.
"""

from __future__ import annotations

from dataclasses import Field, FrozenInstanceError, field
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

__all__ = ["Frozen", "frozen", "frozen_by_keyword"]

Class = TypeVar("Class", bound="type[Frozen]")


class Frozen:
    """What `frozen` classes inherit."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()
    """the fields"""
    _defaults: ClassVar[dict[str, Any]] = {}
    _by_keyword: ClassVar[bool] = False

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._values() == cast(Self, other)._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        values = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__qualname__}({', '.join(f'{n}={v!r}' for n, v in values)})"

    def __post_init__(self) -> None:
        """Called when the fields have their values."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), dict(zip(self.__match_args__, self._values(), strict=True)))

    def __replace__(self, **changes: Any) -> Self:
        """The same with other values of some fields; what `copy.replace` calls, where Python has it."""
        values = dict(zip(self.__match_args__, self._values(), strict=True))
        return type(self)(**{**values, **changes})

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])


def _initialize(self: Any, *values: Any, **named: Any) -> None:
    """Compile the class's initializer, which is this one no more from then on."""
    cls = type(self)
    names, defaults = cls.__match_args__, cls._defaults
    made = {n: default.default_factory for n, default in defaults.items() if type(default) is Field}
    parameters = (f"{n}=_defaults[{n!r}]" if n in defaults else n for n in names)
    lines = (
        f"    _set(self, {n!r}, _made[{n!r}]() if {n} is _defaults[{n!r}] else {n})"
        if n in made
        else f"    _set(self, {n!r}, {n})"
        for n in names
    )
    namespace = {"_defaults": defaults, "_made": made, "_set": object.__setattr__}
    head = ("self", *(("*",) if cls._by_keyword and names else ()), *parameters)
    checked = () if cls.__post_init__ is Frozen.__post_init__ else ("    self.__post_init__()",)
    code = "\n".join((f"def __init__({', '.join(head)}):", *lines, *checked, "    pass"))
    exec(code, namespace)  # noqa: S102 - as `dataclasses` does
    cls.__init__ = namespace["__init__"]
    self.__init__(*values, **named)


def _again(cls: type[Frozen], values: dict[str, Any]) -> Frozen:
    """For `copy` and `pickle`."""
    return cls(**values)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: Class) -> Class:
    """Make the annotated names of a subclass of `Frozen` its fields, behind those that it inherits."""
    own = tuple(name for name, kind in cls.__annotations__.items() if "ClassVar" not in kind)
    namespace = {k: v for k, v in vars(cls).items() if k not in (*own, "__dict__", "__weakref__")}
    namespace.update(
        __slots__=own,
        __init__=_initialize,
        __match_args__=(*cls.__match_args__, *own),
        __qualname__=cls.__qualname__,
        _defaults={**cls._defaults, **{name: vars(cls)[name] for name in own if name in vars(cls)}},
    )
    return cast(Class, type(cls.__name__, cls.__bases__, namespace))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen_by_keyword(cls: Class) -> Class:
    """The same; the fields are given by name only."""
    made = frozen(cls)
    made._by_keyword = True
    return made
