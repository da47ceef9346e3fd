"""Issues as text: the sentence, the place with its line and carets, the hint.

Columns are counted as a terminal shows them; characters that could steer a terminal are shown escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from sandboxfile.errors import Issue, Span

_TAB = 4
_WIDTH = 140
_STYLES = {
    "error": "\x1b[1;31m",
    "note": "\x1b[1;36m",
    "hint": "\x1b[1;32m",
    "frame": "\x1b[34m",
    "caret": "\x1b[31m",
}
_RESET = "\x1b[0m"
_Paint = Callable[[str, str], str]
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def render_issue(issue: Issue, colour: bool = False) -> str:
    """One issue, without a newline at its end."""
    paint = _paint if colour else _plain
    blocks = [_head("error", issue.message, paint)]
    if issue.span is not None:
        blocks.extend(_place(issue.span, paint))
    for words, span in issue.related:
        blocks.append(_head("note", words, paint))
        blocks.extend(_place(span, paint))
    if issue.hint:
        blocks.append(_head("hint", issue.hint, paint))
    return "\n".join(blocks)


def render_issues(issues: Iterable[Issue], colour: bool = False) -> str:
    """Several issues, a blank line between them, without a newline at the end."""
    return "\n\n".join(render_issue(issue, colour) for issue in issues)


def _head(word: str, text: str, paint: _Paint) -> str:
    lines = [visible(line) for line in text.splitlines()] or [""]
    return paint(f"{word}:", word) + " " + "\n".join([lines[0], *(f"  {line}" for line in lines[1:])])


def _place(span: Span, paint: _Paint) -> list[str]:
    number = str(span.line)
    indent = " " * len(number)
    arrow = f"{indent} {paint('-->', 'frame')} {visible(str(span))}"
    line = span.source.line(span.line)
    if not line.strip() and not span.source.text:
        return [arrow]
    shown, offset, width = _window(_masked(line), span.column - 1, span.length)
    bar = paint(f"{indent}  |", "frame")
    return [
        arrow,
        bar,
        f"{paint(f' {number} |', 'frame')} {shown}".rstrip(),
        f"{bar} {' ' * offset}{paint('^' * max(1, width), 'caret')}",
    ]


def _window(line: str, start: int, length: int) -> tuple[str, int, int]:
    """What to show of a line, at which column of it the carets begin, and how many there are."""
    cells = [_cell(character) for character in line]
    widths = [_columns(cell) for cell in cells]
    start = min(start, len(cells))
    end = min(start + max(1, length), len(cells))
    first = 0
    if sum(widths[:end]) > _WIDTH:
        # Long lines: begin a little before the place.
        first = max(0, start - 40)
    prefix = "…" if first else ""
    last, total = first, len(prefix)
    while last < len(cells) and total + widths[last] <= _WIDTH:
        total += widths[last]
        last += 1
    suffix = "…" if last < len(cells) else ""
    offset = len(prefix) + sum(widths[first:start])
    return prefix + "".join(cells[first:last]) + suffix, offset, sum(widths[start : min(end, last)])


def visible(text: str) -> str:
    """A text whose control and direction characters are escaped, and credentials in addresses masked."""
    return "".join(_cell(character) for character in _masked(text))


def _masked(text: str) -> str:
    """Reports end in logs: a password in an address becomes asterisks, as many as it has characters."""
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", lambda match: "*" * len(match[0]), text)


def _cell(character: str) -> str:
    if character == "\t":
        return " " * _TAB
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI:
        return f"\\u{{{ord(character):x}}}"
    return character


def _columns(cell: str) -> int:
    return sum(_width(character) for character in cell)


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _plain(text: str, style: str) -> str:
    del style
    return text


def _paint(text: str, style: str) -> str:
    return f"{_STYLES[style]}{text}{_RESET}"
