"""How lists, tables and other people's text are put into lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listing(items: Sequence[str], limit: int = 3, joint: str = ", ") -> str:
    """The first items, and how many more there are: `a, b, c and 4 more`."""
    shown = list(items[:limit])
    if len(items) == limit + 1:
        shown = list(items)
    text = joint.join(shown)
    return text if len(shown) == len(items) else f"{text} and {len(items) - len(shown)} more"


def one_line(text: str, width: int = 72) -> str:
    """A user's text on one line without control characters, cut to `width` characters."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def columns(rows: Iterable[Sequence[str]], gap: str = "  ") -> list[str]:
    """Rows as lines with aligned columns; the last column is not padded."""
    table = [list(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)] if table else []
    lines = []
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append(gap.join([*cells, row[-1]]).rstrip())
    return lines
