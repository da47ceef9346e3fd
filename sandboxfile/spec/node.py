"""The tree every format is decoded into: scalars as the text that was written, with their places.

A scalar keeps its text (`3.10` stays `3.10`); what it means is decided by the type that is expected where
it stands, never by the look of the text.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

from sandboxfile.declared import dataclass
from sandboxfile.errors import Source, Span

ScalarKind = Literal["plain", "quoted", "rendered", "broken"]
"""`plain`: may be read as text, number, boolean or nothing; `quoted`: is text; `rendered`: came out of a
template, may be anything but nothing; `broken`: an issue was reported already, its reader keeps quiet."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value without parts."""

    text: str
    kind: ScalarKind
    span: Span
    size: int = 1

    @property
    def is_null(self) -> bool:
        """Whether nothing was written (`key:`, `~`, `null`)."""
        return self.kind == "plain" and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in order."""

    items: tuple[Node, ...]
    span: Span
    size: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value."""

    key: str
    key_span: Span
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Named values, in the order they were written; each key once."""

    entries: tuple[Entry, ...]
    span: Span
    size: int = 1

    def get(self, key: str) -> Node | None:
        """The value of a key, or None."""
        for entry in self.entries:
            if entry.key == key:
                return entry.value
        return None


Node = Scalar | Sequence | Mapping


class Locator:
    """Turns offsets and (line, column) pairs of one text into spans. Lines end where `str.splitlines`
    ends them, which is also what `Source.line` shows."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lines = source.text.splitlines(keepends=True)
        self._starts: list[int] | None = None

    def span(self, line: int, column: int, length: int = 1) -> Span:
        """A span from zero-based numbers, cut at the end of its line."""
        text = self._lines[line].rstrip("\r\n\x85\u2028\u2029") if line < len(self._lines) else ""
        return Span(self.source, line + 1, column + 1, max(1, min(length, len(text) - column)))

    def between(self, line: int, column: int, end_line: int, end_column: int) -> Span:
        """A span between two zero-based places; one that goes on below ends with its first line."""
        return self.span(line, column, end_column - column if end_line == line else len(self.source.text))

    def at(self, offset: int, end: int | None = None) -> Span:
        """A span from offsets into the text."""
        if self._starts is None:
            position = 0
            self._starts = []
            for text in self._lines:
                self._starts.append(position)
                position += len(text)
        line = max(0, bisect_right(self._starts, offset) - 1)
        start = self._starts[line] if self._starts else 0
        return self.span(line, offset - start, 1 if end is None else end - offset)
