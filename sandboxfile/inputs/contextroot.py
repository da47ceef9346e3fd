"""A directory that `files` entries are copied from: what is in it, what its ignore file leaves out, and
what leads out of it."""

from __future__ import annotations

import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".sandboxfileignore"
ALWAYS_IGNORED = ".git"


class RefusedError(Exception):
    """One issue about the entry at hand; the scan goes on with the next entry."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        self.code, self.message, self.hint = code, message, hint


@dataclass(frozen=True)
class Found:
    """What a `from` means: a path below the root without symlinks in it, and its status."""

    relative: str
    status: os.stat_result


class ContextRoot:
    """One directory that entries are copied from, with its ignore file."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._spec = self._read_ignore()

    def _read_ignore(self) -> GitIgnoreSpec | None:
        try:
            lines = (self.path / IGNORE_FILE).read_text("utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise RefusedError("bad-ignore-file", f"{IGNORE_FILE} is not UTF-8 text") from None
        except OSError as error:
            raise RefusedError("bad-ignore-file", f"{IGNORE_FILE} cannot be read: {error.strerror}") from None
        from pathspec import GitIgnoreSpec

        try:
            return GitIgnoreSpec.from_lines(lines)
        except ValueError as error:
            raise RefusedError("bad-ignore-file", f"{IGNORE_FILE} has a bad pattern: {error}") from None

    def ignores(self, relative: str, *, directory: bool) -> bool:
        """Whether what stands at `relative` is left out; its parents are taken not to be."""
        if relative.rpartition("/")[2] == ALWAYS_IGNORED:
            return True
        if self._spec is None or not relative:
            return False
        # pathspec wants text; what is not UTF-8 is refused later unless a pattern leaves it out.
        name = relative.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self._spec.match_file(name + "/" if directory else name)

    def names(self, relative: str) -> list[str]:
        """The names in a directory, sorted. Raises RefusedError."""
        try:
            return sorted(os.listdir(self.path / relative))
        except OSError as error:
            raise RefusedError(
                "unreadable-file", f"{shown(relative or '.')} cannot be read: {error.strerror}"
            ) from None

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, sorted; `*`, `?` and `[…]` stay within a name (and match a leading dot), `**`
        is any number of directories. Symlinks are matched, never entered."""
        found: set[str] = set()
        self._match("", pattern.split("/"), found)
        return sorted(found)

    def _match(self, relative: str, parts: list[str], found: set[str]) -> None:
        head, rest = parts[0], parts[1:] or (["*"] if parts[0] == "**" else [])
        if head == "**":
            self._match(relative, rest, found)
        for name in self.names(relative):
            inner = f"{relative}/{name}" if relative else name
            try:
                directory = stat.S_ISDIR(os.lstat(self.path / inner).st_mode)
            except FileNotFoundError:
                # Removed since its directory was read.
                continue
            if self.ignores(inner, directory=directory):
                continue
            if head == "**":
                if directory:
                    self._match(inner, parts, found)
            elif fnmatchcase(name, head):
                if not rest:
                    found.add(inner)
                elif directory:
                    self._match(inner, rest, found)

    def resolve(self, source: str) -> Found:
        """What a `from` without wildcards means, symlinks followed. Raises RefusedError."""
        real = os.path.realpath(self.path / source)
        if real != str(self.path) and not real.startswith(f"{str(self.path).rstrip('/')}/"):
            raise RefusedError(
                "path-outside-context",
                f"`from: {shown(source)}` leads outside the build context through a symlink",
                "copy the file into the context",
            )
        try:
            status = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            raise RefusedError(
                "missing-file",
                f"there is no {shown(source)} in the build context",
                self._near_miss(source),
            ) from None
        except OSError as error:
            raise RefusedError(
                "unreadable-file", f"{shown(source)} cannot be read: {error.strerror}"
            ) from None
        relative = "" if real == str(self.path) else os.path.relpath(real, self.path)
        for named in {source, relative} - {""}:
            self._refuse_ignored(named, stat.S_ISDIR(status.st_mode))
        return Found(relative, status)

    def _refuse_ignored(self, named: str, directory: bool) -> None:
        parts = named.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            if self.ignores(part, directory=directory or count < len(parts)):
                always = ALWAYS_IGNORED in parts
                raise RefusedError(
                    "ignored-file",
                    f"{shown(named)} is left out of the build context"
                    + ("" if always else f" by {IGNORE_FILE}"),
                    None if always else f"add `!/{named}` to {IGNORE_FILE}, or remove the pattern",
                )

    def _near_miss(self, source: str) -> str | None:
        import difflib

        parent, _, name = source.rpartition("/")
        while parent and not (self.path / parent).is_dir():
            parent, _, name = parent.rpartition("/")
        try:
            names = [n for n in os.listdir(self.path / parent) if is_text(n)]
        except OSError:
            return None
        close = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
        if not close:
            return None
        return "did you mean " + " or ".join(f"{parent}/{n}" if parent else n for n in close) + "?"


def is_text(name: str) -> bool:
    """Whether a name has a UTF-8 form; one that has none holds the surrogates Python reads it with."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(path: str) -> str:
    """A path for a message: what is not text or not printable is escaped."""
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in path)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is not UTF-8, as Python reads file names.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
