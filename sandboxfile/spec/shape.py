"""Shapes: what may stand where, as values. One table of shapes drives the loader and the JSON Schema.

`Reader.read` compares a Node with a shape and gives back plain values with their places. It never stops at
a problem: each becomes an Issue, and what cannot be used is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import field
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.errors import Issue, Span
from sandboxfile.spec.node import Entry, Mapping, Node, Scalar, Sequence


class Unfit(ValueError):
    """A text that is not what its place asks for; the message is the Issue's sentence."""

    def __init__(self, message: str, *, hint: str | None = None, code: str = "bad-value") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class Text:
    """A scalar, read as text; `parse` turns it into a value or raises Unfit."""

    what: str = "text"
    parse: Callable[[str], Any] | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    numeric: bool = True
    """Whether editors should let numbers and booleans stand for text here."""


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds."""

    minimum: int
    maximum: int
    what: str = "a whole number"


@dataclass(frozen=True)
class Number:
    """A number above zero."""

    what: str = "a number"


@dataclass(frozen=True)
class Boolean:
    """`true` or `false`."""

    what: str = "`true` or `false`"


@dataclass(frozen=True)
class Listing:
    """Values of one shape, in order; `unique` gives what must not come twice."""

    item: Shape
    what: str = "a list"
    unique: Callable[[Any], Hashable] | None = None


@dataclass(frozen=True)
class Key:
    """A key of a Table: its shape, what it means, and examples that are valid as they stand."""

    name: str
    shape: Shape
    doc: str
    required: bool = False
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Table:
    """A mapping with fixed keys."""

    keys: tuple[Key, ...]
    what: str = "a mapping"

    def key(self, name: str) -> Key | None:
        """The key of that name, or None."""
        return next((key for key in self.keys if key.name == name), None)


@dataclass(frozen=True)
class Names:
    """A mapping with free keys; `name` is the shape of a key."""

    name: Text
    item: Shape
    what: str = "a mapping"


@dataclass(frozen=True)
class OneOf:
    """A scalar, a list or a mapping: which one, the node says."""

    scalar: Shape | None = None
    sequence: Shape | None = None
    mapping: Shape | None = None
    tables: tuple[Table, ...] = ()
    """For a mapping that has several forms, told apart by the first key of each."""

    @property
    def what(self) -> str:
        """All of it in words."""
        shapes = [shape for shape in (self.scalar, self.sequence, self.mapping) if shape]
        words = [shape.what for shape in shapes] + (["a mapping"] if self.tables else [])
        return " or ".join(dict.fromkeys(words))


@dataclass(frozen=True)
class NotYet:
    """Something the format has a place for and this version does not do."""

    sentence: str
    hint: str
    what: str = "nothing yet"


Shape = Text | Integer | Number | Boolean | Listing | Table | Names | OneOf | NotYet


@dataclass(frozen=True)
class Found:
    """A value and where it was found: the value of a Table or of Names is a dict of Found, of a Listing
    a list of Found. `span` is the value's place, `path` says it in words (`verify[2].run`). `written` are
    the keys of a Table that were given, those with a problem too."""

    value: Any
    span: Span
    path: str = field(default="", compare=False)
    written: frozenset[str] = field(default=frozenset(), compare=False)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key of a Table, or `default` where it was not given."""
        found = self.value.get(key)
        return default if found is None else found.value

    def values(self, key: str | None = None) -> tuple[Any, ...]:
        """The bare values of a Listing (or of the Listing under a key; empty where it was not given)."""
        items = self.value if key is None else self.get(key, ())
        return tuple(item.value for item in items)


class Reader:
    """Reads nodes, and collects what is wrong with them in `issues`."""

    def __init__(self, issues: list[Issue]) -> None:
        self.issues = issues

    def read(self, shape: Shape, node: Node, path: str = "") -> Found | None:
        """The value a node has under a shape, or None when it has none; the issues say why."""
        if isinstance(shape, NotYet):
            self.issue("not-yet", shape.sentence, node.span, path, shape.hint)
            return None
        if isinstance(node, Scalar):
            return self._scalar(shape, node, path)
        if isinstance(node, Sequence):
            return self._sequence(shape, node, path)
        return self._mapping(shape, node, path)

    def issue(
        self,
        code: str,
        message: str,
        span: Span | None,
        path: str = "",
        hint: str | None = None,
        related: tuple[tuple[str, Span], ...] = (),
    ) -> None:
        """Note a problem."""
        self.issues.append(Issue(code, message, span, path, hint, related))

    def _scalar(self, shape: Shape, node: Scalar, path: str) -> Found | None:
        if isinstance(shape, OneOf) and shape.scalar is not None:
            return self.read(shape.scalar, node, path)
        if node.kind == "broken":
            return None
        if node.is_null or not isinstance(shape, (Text, Integer, Number, Boolean)):
            return self._wrong(shape, node, path)
        try:
            return Found(_value(shape, node), node.span, path)
        except Unfit as unfit:
            self.issue(unfit.code, unfit.message, node.span, path, unfit.hint)
        return None

    def _sequence(self, shape: Shape, node: Sequence, path: str) -> Found | None:
        if isinstance(shape, OneOf) and shape.sequence is not None:
            return self.read(shape.sequence, node, path)
        if not isinstance(shape, Listing):
            return self._wrong(shape, node, path)
        found: list[Found] = []
        seen: dict[Hashable, Span] = {}
        for number, item in enumerate(node.items):
            if isinstance(item, Scalar) and item.kind == "rendered" and not item.text.strip():
                continue  # how a template leaves an entry out
            one = self.read(shape.item, item, f"{path}[{number}]")
            if one is None:
                continue
            if shape.unique is not None:
                word = shape.unique(one.value)
                if word in seen:
                    related = (("first listed here", seen[word]),)
                    self.issue("duplicate", f"`{word}` is listed twice", one.span, one.path, None, related)
                    continue
                seen[word] = one.span
            found.append(one)
        return Found(found, node.span, path)

    def _mapping(self, shape: Shape, node: Mapping, path: str) -> Found | None:
        if isinstance(shape, OneOf):
            for table in shape.tables:
                if node.get(table.keys[0].name) is not None:
                    return self._table(table, node, path)
            if shape.tables:
                self._headless(shape.tables, node, path)
                return None
            if shape.mapping is not None:
                return self.read(shape.mapping, node, path)
        if isinstance(shape, Table):
            return self._table(shape, node, path)
        if isinstance(shape, Names):
            return self._names(shape, node, path)
        return self._wrong(shape, node, path)

    def _headless(self, tables: tuple[Table, ...], node: Mapping, path: str) -> None:
        heads = [table.keys[0].name for table in tables]
        near = (did_you_mean(entry.key, heads) for entry in node.entries)
        hint = next((hint for hint in near if hint), None)
        words = " or ".join(f"`{head}`" for head in heads)
        message = f"`{path}` needs {'the key' if len(heads) == 1 else 'one of the keys'} {words}"
        self.issue("missing-key", message, node.span, path, hint)

    def _table(self, shape: Table, node: Mapping, path: str) -> Found:
        values: dict[str, Found] = {}
        meant: set[str | None] = set()
        for entry in node.entries:
            key = shape.key(entry.key)
            if key is None:
                meant.add(self._unknown(entry, shape, path))
                continue
            found = self._entry(key.shape, entry, f"{path}.{entry.key}" if path else entry.key)
            if found is not None:
                values[entry.key] = found
        for key in shape.keys:
            if key.required and node.get(key.name) is None and key.name not in meant:
                where = f"`{path}` needs the key `{key.name}`" if path else f"the key `{key.name}` is missing"
                example = f"add `{key.name}: {key.examples[0]}`" if key.examples else None
                self.issue("missing-key", where, node.span, path, example)
        return Found(values, node.span, path, frozenset(entry.key for entry in node.entries))

    def _names(self, shape: Names, node: Mapping, path: str) -> Found:
        values: dict[str, Found] = {}
        for entry in node.entries:
            name = self.read(shape.name, Scalar(entry.key, "quoted", entry.key_span), path)
            found = self._entry(shape.item, entry, f"{path}.{entry.key}")
            if name is not None and found is not None:
                values[entry.key] = found
        return Found(values, node.span, path)

    def _entry(self, shape: Shape, entry: Entry, path: str) -> Found | None:
        """An entry's value; a problem with nothing at all, or with the whole of it, points at the key."""
        value = entry.value
        if isinstance(shape, NotYet) or (isinstance(value, Scalar) and value.is_null):
            value = Scalar("", "plain", entry.key_span)
        return self.read(shape, value, path)

    def _wrong(self, shape: Shape, node: Node, path: str) -> Found | None:
        message = f"`{path}` must be {shape.what}, not {_kind(node)}" if path else f"expected {shape.what}"
        hint = None
        listed = isinstance(shape, Listing) or (isinstance(shape, OneOf) and shape.sequence is not None)
        if isinstance(node, Scalar) and listed:
            hint = f"write `[{node.text}]`" if node.text and "\n" not in node.text else None
        self.issue("wrong-type", message, node.span, path, hint)
        return None

    def _unknown(self, entry: Entry, shape: Table, path: str) -> str | None:
        """Report an unknown key; the known one that was probably meant."""
        known = [key.name for key in shape.keys if not isinstance(key.shape, NotYet)]
        place = f"{path}.{entry.key}" if path else entry.key
        meant = nearest(entry.key, known)
        hint = f"did you mean `{meant}`?" if meant else f"known here: {', '.join(known)}"
        self.issue("unknown-key", f"unknown key {quote(entry.key)}", entry.key_span, place, hint)
        return meant


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like another, or None when none is near."""
    import difflib

    words = list(known)
    for form in dict.fromkeys((word[:100].lower().replace("_", "-"), word[:100])):
        if near := difflib.get_close_matches(form, words, n=1, cutoff=0.6):
            return near[0]
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest of the known words, or None when none is near."""
    near = nearest(word, known)
    return f"did you mean `{near}`?" if near else None


def _value(shape: Text | Integer | Number | Boolean, node: Scalar) -> Any:
    text = node.text
    if isinstance(shape, Text):
        if shape.choices and text not in shape.choices:
            choices = ", ".join(f"`{choice}`" for choice in shape.choices)
            raise Unfit(f"{quote(text)} is not one of {choices}", hint=did_you_mean(text, shape.choices))
        return shape.parse(text) if shape.parse else text
    if node.kind == "quoted":
        raise Unfit(f"expected {shape.what}, found the text {quote(text)}", hint="write it without quotes")
    if isinstance(shape, Boolean):
        return boolean(text)
    return whole(text, shape) if isinstance(shape, Integer) else _number(text, shape)


def boolean(text: str) -> bool:
    """`true` or `false`. Raises Unfit."""
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    meant = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}
    word = meant.get(text.lower())
    raise Unfit(f"expected `true` or `false`, found {quote(text)}", hint=f"write `{word}`" if word else None)


def whole(text: str, shape: Integer) -> int:
    """A whole number within a shape's bounds. Raises Unfit."""
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    digits = digits.replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Unfit(f"expected {shape.what}, found {quote(text)}")
    value = int(sign + digits)
    if not shape.minimum <= value <= shape.maximum:
        raise Unfit(f"{value} is not {shape.what} from {shape.minimum} to {shape.maximum}")
    return value


def _number(text: str, shape: Number) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Unfit(f"expected {shape.what}, found {quote(text)}") from None
    if not 0 < value < 1e6:
        raise Unfit(f"{text} is not {shape.what} above 0")
    return value


def quote(text: str, limit: int = 60) -> str:
    """A text as messages show it: in backticks, control characters escaped, not too long."""
    if not text:
        return "an empty text"
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "`" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + "`"


def _kind(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else "a single value" if node.kind == "plain" else "text"
    return "a list" if isinstance(node, Sequence) else "a mapping"
