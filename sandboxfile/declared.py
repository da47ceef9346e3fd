"""`dataclass`, whose methods work without being generated.

`dataclasses` compiles five or six functions for each class, about half a millisecond. A command line that
makes one instance each of forty classes would spend a fifth of its time on that. Here comparison, hash and
text are closures over the names of the fields, which are looked up when the first instance is made. The
initialiser is one too, until a class has so many instances that compiling one pays.

For type checkers this is the standard decorator. `dataclasses.fields`, `replace` and whatever else asks for
`__dataclass_fields__` finds what the standard decorator would have put there.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from operator import attrgetter, ge, gt, le, lt
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "replace"]

_FIELDS = "__dataclass_fields__"
_MATCH = "__match_args__"
_MANY = 100
"""From how many instances on an initialiser of its own saves more time than it takes to compile."""
_lock = threading.RLock()

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """Declare a dataclass. With other options than `frozen` and `order` by the standard decorator."""
        if not options.keys() <= {"frozen", "order"}:
            return dataclasses.dataclass(cls, **options)

        def declare(cls: type) -> type:
            _Declared(cls, **options).equip()
            return cls

        return declare if cls is None else declare(cls)

    def replace(instance: Any, /, **changes: Any) -> Any:
        """As `dataclasses.replace`: a copy of an instance with some fields changed."""
        known = type(instance).__dict__.get(_FIELDS)
        if isinstance(known, _Declared) and known.plain:
            return type(instance)(**(vars(instance) | changes))
        return dataclasses.replace(instance, **changes)


class _Declared:
    """What a class declares. It stands where the standard decorator puts the fields, until somebody asks."""

    def __init__(self, cls: type, frozen: bool = False, order: bool = False) -> None:
        self._cls = cls
        self._frozen = frozen
        self._order = order
        self._made = 0
        self._own: dict[str, dataclasses.Field[Any]] = {}
        self._all: dict[str, dataclasses.Field[Any]] | None = None
        self.plain = True

    def equip(self) -> None:
        """Give the class its methods; those that it defines itself stay."""
        cls = self._cls
        own = set(cls.__dict__)
        for name, method in self._methods().items():
            if name not in own:
                setattr(cls, name, method)
        if "__hash__" not in own:
            cls.__hash__ = self._hash() if self._frozen else None  # type: ignore[assignment]
        setattr(cls, _FIELDS, self)
        setattr(cls, _MATCH, _Patterns(self))

    def __get__(self, _instance: object, _owner: type) -> Any:
        standard = self._standard()
        for name in ("__dataclass_params__", _FIELDS):
            setattr(self._cls, name, standard.__dict__[name])
        return standard.__dict__[_FIELDS]

    @property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """The fields in order, those of the classes it extends first; looked up once."""
        if self._all is None:
            with _lock:
                return self._look_up()
        return self._all

    def _look_up(self) -> dict[str, dataclasses.Field[Any]]:
        if self._all is None:
            found: dict[str, dataclasses.Field[Any]] = {}
            for base in self._cls.__mro__[:0:-1]:
                known = base.__dict__.get(_FIELDS)
                if isinstance(known, _Declared):
                    found |= known.fields
                elif known is not None:
                    found |= {each.name: each for each in dataclasses.fields(base)}
            self._own = _take_fields(self._cls)
            found |= self._own
            self.plain = all(each.init for each in found.values())
            self._all = found
        return self._all

    def _methods(self) -> dict[str, Callable[..., Any]]:
        cls: Any = self._cls
        take = self._attributes()

        def __init__(instance: Any, *values: Any, **named: Any) -> None:  # noqa: N807
            self._initialise(instance, values, named)

        def __eq__(left: Any, right: Any) -> Any:  # noqa: N807
            return take(left) == take(right) if right.__class__ is left.__class__ else NotImplemented

        def __repr__(instance: Any) -> str:  # noqa: N807
            shown = (name for name, each in self.fields.items() if each.repr)
            texts = ", ".join(f"{name}={getattr(instance, name)!r}" for name in shown)
            return f"{instance.__class__.__qualname__}({texts})"

        def __setattr__(instance: Any, name: str, value: Any) -> None:  # noqa: N807
            if type(instance) is cls or name in self.fields:
                raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
            super(cls, instance).__setattr__(name, value)

        def __delattr__(instance: Any, name: str) -> None:  # noqa: N807
            if type(instance) is cls or name in self.fields:
                raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
            super(cls, instance).__delattr__(name)

        methods: list[Callable[..., Any]] = [__init__, __eq__, __repr__]
        if self._frozen:
            methods += [__setattr__, __delattr__]
        named = {method.__name__: method for method in methods}
        return named | {name: _ordering(take, of) for name, of in _ORDER.items()} if self._order else named

    def _hash(self) -> Callable[[Any], int]:
        take = self._attributes()
        return lambda instance: hash(take(instance))

    def _attributes(self) -> Callable[[Any], tuple[Any, ...]]:
        """What takes the values that are compared out of an instance."""
        getter: Callable[[Any], Any] | None = None
        count = 0

        def take(instance: Any) -> tuple[Any, ...]:
            nonlocal getter, count
            if getter is None:
                names = [name for name, each in self.fields.items() if each.compare]
                count = len(names)
                getter = attrgetter(*names) if names else lambda _: ()
            taken = getter(instance)
            return (taken,) if count == 1 else taken

        return take

    def _initialise(self, instance: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._made += 1
        names = self.fields
        if self._made > _MANY or len(values) > len(names) or not self.plain:
            self._compiled(instance, values, named)
            return
        given = dict(zip(names, values, strict=False))
        if named:
            if not given.keys().isdisjoint(named) or not named.keys() <= names.keys():
                self._compiled(instance, values, named)  # which says what is wrong
                return
            given |= named
        state = instance.__dict__
        for name, each in names.items():
            if name in given:
                state[name] = given[name]
            elif each.default is not dataclasses.MISSING:
                state[name] = each.default
            elif each.default_factory is not dataclasses.MISSING:
                state[name] = each.default_factory()
            else:
                self._compiled(instance, values, named)
        if hasattr(instance, "__post_init__"):
            instance.__post_init__()

    def _compiled(self, instance: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Initialise by the standard decorator's method, which from now on is the class's."""
        method = self._standard().__init__  # type: ignore[misc]
        self._cls.__init__ = method  # type: ignore[misc]
        method(instance, *values, **named)

    def _standard(self) -> type:
        """A class with the same fields, declared in the standard way."""
        cls = self._cls
        assert self.fields is not None
        about = {name: value for name, value in vars(cls).items() if name in _ABOUT}
        copy = type(cls)(cls.__name__, cls.__bases__, about | self._own)
        return dataclasses.dataclass(frozen=self._frozen, order=self._order)(copy)


def _ordering(take: Callable[[Any], Any], compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(left: Any, right: Any) -> Any:
        return compare(take(left), take(right)) if right.__class__ is left.__class__ else NotImplemented

    return method


class _Patterns:
    """`__match_args__` of a class, looked up when a pattern needs it."""

    def __init__(self, declared: _Declared) -> None:
        self._declared = declared

    def __get__(self, _instance: object, _owner: type) -> tuple[str, ...]:
        return tuple(name for name, each in self._declared.fields.items() if each.init)


_ORDER = {"__lt__": lt, "__le__": le, "__gt__": gt, "__ge__": ge}
_ABOUT = frozenset({"__module__", "__qualname__", "__doc__", "__annotations__", "__post_init__"})


def _take_fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields that a class declares itself. What was assigned to them becomes their default, as ever."""
    found = {}
    for name, kind in cls.__annotations__.items():
        if str(kind).startswith(("ClassVar", "typing.ClassVar")):
            continue
        value = cls.__dict__.get(name, dataclasses.MISSING)
        if isinstance(value, dataclasses.Field):
            found[name] = value
            if value.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, value.default)
        else:
            found[name] = dataclasses.field(default=value)
    return found
