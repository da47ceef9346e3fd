"""Where the keys and values of a TOML text are.

The text is one that a TOML parser has accepted (or the part before the place it stopped at), so this only
has to find its way, not to judge. What it cannot follow, it leaves out.
"""

from __future__ import annotations

import re
from dataclasses import field

from sandboxfile.declared import dataclass

Path = tuple[str | int, ...]
Place = tuple[int, int]

_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_LONG = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^\']|\'{1,2}(?!\'))*\'{3,5}', re.DOTALL)
_OTHER = re.compile(r"[^,\]}#\n]*")


@dataclass
class Places:
    """Offsets by path: of each key (the place it was first written at) and of each value. `repeated`
    holds the later places of keys that are written more than once."""

    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    repeated: list[tuple[Path, Place]] = field(default_factory=list)


class _Lost(Exception):
    """The text cannot be followed any further."""


def scan(text: str) -> Places:
    """The places of everything in a TOML text, as far as it can be followed."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (_Lost, RecursionError):
        pass  # what was found so far is what there is
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.places = Places()
        self.counts: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while self._skip():
            start = self.position
            if self.text.startswith("[[", start):
                self.position += 2
                path = self._key(self._path_of, ())
                index = self.counts.get(path, 0)
                self.counts[path] = index + 1
                self._expect("]]")
                table = (*path, index)
                self.places.values.setdefault(path, (start, self.position))
                self.places.values[table] = (start, self.position)
            elif self.text.startswith("[", start):
                self.position += 1
                table = self._key(self._path_of, ())
                self._expect("]")
                if table in self.places.values:
                    self.places.repeated.append((table, (start, self.position)))
                self.places.values.setdefault(table, (start, self.position))
            else:
                self._pair(table)

    def _path_of(self, table: Path) -> Path:
        """A header's path, with the index of the last element wherever it passes an array of tables."""
        return (*table, self.counts[table] - 1) if table in self.counts else table

    def _pair(self, table: Path) -> None:
        before = len(self.places.repeated)
        path = self._key(lambda path: path, table)
        if path not in self.places.values:
            del self.places.repeated[before:]
        self._expect("=")
        self._blank()
        self._value(path)

    def _key(self, pass_through: object, path: Path) -> Path:
        while True:
            self._blank()
            start = self.position
            part = self._word()
            # Only a part that another follows is passed through; the last names the thing itself.
            parent = pass_through(path) if callable(pass_through) else path
            path = (*parent, part)
            if path in self.places.keys:
                self.places.repeated.append((path, (start, self.position)))
            self.places.keys.setdefault(path, (start, self.position))
            self._blank()
            if not self.text.startswith(".", self.position):
                return path
            self.position += 1

    def _word(self) -> str:
        for pattern in (_BASIC, _LITERAL, _BARE):
            if match := pattern.match(self.text, self.position):
                self.position = match.end()
                if pattern is _BASIC:
                    return _unescape(match[1])
                return match[1] if pattern is _LITERAL else match[0]
        raise _Lost

    def _value(self, path: Path) -> None:
        start = self.position
        character = self.text[start : start + 1]
        if character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        elif character and character in "\"'":
            for pattern in (_LONG, _BASIC, _LITERAL):
                if match := pattern.match(self.text, start):
                    self.position = match.end()
                    break
            else:
                raise _Lost
        else:
            match = _OTHER.match(self.text, start)
            self.position = start + len(match[0].rstrip()) if match else start
            if self.position == start:
                raise _Lost
        self.places.values.setdefault(path, (start, self.position))

    def _array(self, path: Path) -> None:
        self.position += 1
        index = 0
        while self._skip() and not self.text.startswith("]", self.position):
            self._value((*path, index))
            index += 1
            self._skip()
            if self.text.startswith(",", self.position):
                self.position += 1
        self._expect("]")

    def _inline_table(self, path: Path) -> None:
        self.position += 1
        while self._skip() and not self.text.startswith("}", self.position):
            self._pair(path)
            self._skip()
            if self.text.startswith(",", self.position):
                self.position += 1
        self._expect("}")

    def _skip(self) -> bool:
        """Go past white space and comments; whether anything follows."""
        match = _SKIP.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.position < len(self.text)

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.position)
        self.position = match.end() if match else self.position

    def _expect(self, token: str) -> None:
        self._blank()
        if not self.text.startswith(token, self.position):
            raise _Lost
        self.position += len(token)


def _unescape(text: str) -> str:
    simple = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}

    def one(match: re.Match[str]) -> str:
        word = match[1]
        return chr(int(word[1:], 16)) if word[0] in "uU" else simple.get(word, word)

    return re.sub(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", one, text)
