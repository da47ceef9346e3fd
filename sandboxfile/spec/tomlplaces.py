"""Spans in the TOML texts that are read with the standard library, which gives no positions. Only made
when there is something to point at."""

from __future__ import annotations

import re

from sandboxfile.errors import Source, Span
from sandboxfile.spec.node import Locator
from sandboxfile.spec.tomlscan import Path, scan


def span_of(source: Source, path: Path) -> Span:
    """The value at a path, or what is nearest around it; at worst the first line."""
    places = scan(source.text)
    while path:
        found = places.values.get(path) or places.keys.get(path)
        if found:
            return Locator(source).at(*found)
        path = path[:-1]
    return Locator(source).span(0, 0)


def line_span(source: Source, line: int) -> Span:
    """The text of a 1-based line."""
    text = source.line(line)
    start = len(text) - len(text.lstrip())
    return Locator(source).span(line - 1, start, max(1, len(text.strip())))


def syntax_problem(source: Source, error: Exception) -> tuple[str, Span]:
    """The reason and the place of what `tomllib` raised: ValueError, or RecursionError."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply", line_span(source, 1)
    found = re.search(r" \(at line (\d+), column \d+\)$", str(error))
    line = int(found[1]) if found else max(1, len(source.text.splitlines()))
    reason = str(error).partition(" (at ")[0]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in reason), line_span(source, line)
