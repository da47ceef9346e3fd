"""What one document says, Sandboxfile or recipe, as model values by path, and the rules that merge them.

Every path has one declared rule, so that what a recipe adds to a file is a table and not a habit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.errors import Span
from sandboxfile.spec.model import AptRequest
from sandboxfile.spec.packages import request_name
from sandboxfile.spec.shape import Found, Reader


class Rule(Enum):
    """How values of one path come together.

    ONE:  a single value; two different ones are a conflict
    LIST: appended in order
    SET:  appended in order, each value once
    MAP:  by name; two different values for one name are a conflict
    """

    ONE = "one"
    LIST = "list"
    SET = "set"
    MAP = "map"


RULES: Mapping[str, Rule] = {
    "name": Rule.ONE,
    "freshness": Rule.ONE,
    "base": Rule.ONE,
    "apt": Rule.ONE,
    "apt.packages": Rule.SET,
    "apt.sources": Rule.MAP,
    "apt.recommends": Rule.ONE,
    "pip": Rule.ONE,
    "pip.packages": Rule.SET,
    "pip.index-url": Rule.ONE,
    "pip.extra-index-urls": Rule.SET,
    "pip.find-links": Rule.SET,
    "pip.constraints": Rule.SET,
    "pip.prereleases": Rule.ONE,
    "pip.exclude-newer": Rule.ONE,
    "pip.build": Rule.SET,
    "pip.venv": Rule.ONE,
    "env": Rule.MAP,
    "workdir": Rule.ONE,
    "user": Rule.ONE,
    "files": Rule.LIST,
    "run": Rule.LIST,
    "verify": Rule.LIST,
    "start": Rule.ONE,
    "resources": Rule.ONE,
    "network": Rule.ONE,
    "secrets": Rule.MAP,
    "labels": Rule.MAP,
}


@dataclass
class Fragment:
    """Values by path. ONE holds a Found, LIST and SET a list of them, MAP a dict of them by name.
    `secret_uses` are the names that steps ask for, with their places."""

    ones: dict[str, Found] = field(default_factory=dict)
    lists: dict[str, list[Found]] = field(default_factory=dict)
    maps: dict[str, dict[str, Found]] = field(default_factory=dict)
    secret_uses: list[Found] = field(default_factory=list)

    def one(self, path: str, default: Any = None) -> Any:
        """The value of a ONE path, or the default."""
        found = self.ones.get(path)
        return default if found is None else found.value

    def all(self, path: str) -> tuple[Any, ...]:
        """The values of a LIST or SET path."""
        return tuple(found.value for found in self.lists.get(path, ()))

    def named(self, path: str) -> dict[str, Any]:
        """The values of a MAP path by name."""
        return {name: found.value for name, found in self.maps.get(path, {}).items()}

    def span(self, path: str) -> Span | None:
        """Where a ONE path was given, or the key of its section."""
        found = self.ones.get(path)
        return found.span if found else None


def merge(fragments: Sequence[Fragment], reader: Reader) -> Fragment:
    """All fragments as one, in order; conflicts become issues at the later place."""
    merged = Fragment()
    for fragment in fragments:
        for path, found in fragment.ones.items():
            # A section's own place says only where to point at: the first is as good as any.
            _one(merged.ones, path, path, found, reader, quiet=path in ("apt", "pip"))
        for path, items in fragment.lists.items():
            extend(merged.lists.setdefault(path, []), path, items, reader)
        for path, named in fragment.maps.items():
            target = merged.maps.setdefault(path, {})
            for name, found in named.items():
                _one(target, name, f"{path}.{name}", found, reader)
        merged.secret_uses.extend(fragment.secret_uses)
    return merged


def _one(
    target: dict[str, Found], key: str, path: str, found: Found, reader: Reader, *, quiet: bool = False
) -> None:
    first = target.setdefault(key, found)
    if not quiet and first.value != found.value:
        message = f"`{path}` has another value in what is included"
        hint = "a value can be given once: take it out of the recipe or of the Sandboxfile"
        related = (("the other value", first.span),)
        reader.issue("conflict", message, found.span, found.path, hint, related)


def extend(target: list[Found], path: str, items: Sequence[Found], reader: Reader) -> None:
    """Append to a LIST or SET path by its rule; conflicting packages become issues."""
    if RULES[path] is Rule.LIST:
        target.extend(items)
        return
    places = {_identity(found.value): number for number, found in enumerate(target)}
    for found in items:
        number = places.setdefault(_identity(found.value), len(target))
        if number == len(target):
            target.append(found)
        elif isinstance(found.value, AptRequest):
            target[number] = _same_package(target[number], found, reader)


def _identity(value: Any) -> object:
    """What makes two values of a SET the same: for a Debian package, its name."""
    return (value.name, value.arch) if isinstance(value, AptRequest) else request_name(value)


def _same_package(first: Found, second: Found, reader: Reader) -> Found:
    """The request that stands for two of one package: the one that says more."""
    if first.value == second.value or (second.value.version is None and second.value.suite is None):
        return first
    if first.value.version is None and first.value.suite is None:
        return second
    message = f"`{second.value}` and `{first.value}` cannot both be installed"
    related = (("the other request", first.span),)
    reader.issue("conflict", message, second.span, second.path, "keep one of them", related)
    return first
