"""TOML text to a Node tree. tomli says what the values are, a scanner of the same text where they are."""

from __future__ import annotations

from typing import Any

import tomli

from sandboxfile.errors import Issue, Source, SpecError
from sandboxfile.spec.decode import MAX_DEPTH
from sandboxfile.spec.node import Entry, Locator, Mapping, Node, Scalar, Sequence
from sandboxfile.spec.tomlscan import Path, Places, scan
from sandboxfile.spec.yamltext import duplicate_key


def compose_toml(source: Source, issues: list[Issue], *, table: tuple[str, ...] = ()) -> Node | None:
    """The tree of a TOML document, or of one `table` in it. Raises SpecError when it cannot be parsed."""
    locator = Locator(source)
    try:
        document = tomli.loads(source.text, parse_float=_Raw)
    except tomli.TOMLDecodeError as error:
        raise SpecError((_syntax(error, locator),)) from None
    except RecursionError:
        message = f"values are nested deeper than {MAX_DEPTH} levels"
        raise SpecError((Issue("too-deep", message, locator.span(0, 0)),)) from None
    except ValueError as error:
        raise SpecError((Issue("syntax", f"this is not TOML: {error}", locator.span(0, 0)),)) from None
    value: Any = document
    for name in table:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        header = ".".join(table)
        hint = f"add a `[{header}]` table, or name another file with -f"
        raise SpecError((Issue("missing-key", f"`{source.name}` has no `[{header}]` table", hint=hint),))
    return _Composer(locator, scan(source.text), issues).node(value, table)


class _Raw(str):
    """A float as it was written."""

    __slots__ = ()


class _Composer:
    def __init__(self, locator: Locator, places: Places, issues: list[Issue]) -> None:
        self.locator = locator
        self.places = places
        self.issues = issues

    def node(self, value: Any, path: Path) -> Node:
        start, end = self.places.values.get(path) or self.places.keys.get(path) or (0, 1)
        span = self.locator.at(start, end)
        if len(path) > MAX_DEPTH:
            raise SpecError((Issue("too-deep", f"values are nested deeper than {MAX_DEPTH} levels", span),))
        if isinstance(value, dict):
            entries = tuple(
                Entry(key, self.locator.at(*self.places.keys.get((*path, key), (start, end))), node)
                for key, node in ((key, self.node(item, (*path, key))) for key, item in value.items())
            )
            return Mapping(entries, span, 1 + sum(entry.value.size for entry in entries))
        if isinstance(value, list):
            items = tuple(self.node(item, (*path, number)) for number, item in enumerate(value))
            return Sequence(items, span, 1 + sum(item.size for item in items))
        if isinstance(value, str) and not isinstance(value, _Raw):
            return Scalar(value, "quoted", span)
        return Scalar(self._raw(value, path), "plain", span)

    def _raw(self, value: Any, path: Path) -> str:
        place = self.places.values.get(path)
        if place is not None:
            return self.locator.source.text[slice(*place)].strip()
        return str(value).lower() if isinstance(value, bool) else str(value)


def _syntax(error: tomli.TOMLDecodeError, locator: Locator) -> Issue:
    position = min(error.pos, max(0, len(locator.source.text) - 1))
    if "overwrite" in error.msg or "twice" in error.msg or "uplicate" in error.msg:
        # The parser stops behind the second one; both are in the text before that place.
        places = scan(locator.source.text[: error.pos])
        if places.repeated:
            path, second = places.repeated[-1]
            return duplicate_key(str(path[-1]), locator.at(*second), locator.at(*places.keys[path]))
    message = error.msg[:1].lower() + error.msg[1:]
    return Issue("syntax", f"this is not TOML: {message}", locator.at(position))
