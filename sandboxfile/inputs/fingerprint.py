"""What the kernel says about every file that `files` entries may copy, as bytes to compare.

While they are equal, no file was touched: the time of change cannot be set back by a program. A fingerprint
proves nothing of files that were touched so shortly before it was taken that one more write could leave the
times as they are ("racily clean", git's word); `is_settled` says whether there are any.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

RACY_NS = 2_000_000_000
_GLOB = frozenset("*?[")
_IGNORE_FILE = ".sandboxfileignore"
_ALWAYS_IGNORED = ".git"


class Fingerprint:
    """The status of everything at and below some places. `content` is None when something could not be looked
    at; `newest` is the latest time in it, in nanoseconds since the epoch."""

    def __init__(self, content: bytes | None, newest: int) -> None:
        self.content = content
        self.newest = newest

    def is_settled(self, now_ns: int) -> bool:
        """Whether no file can have been written again without a trace since it was looked at, at `now_ns`."""
        return self.content is not None and now_ns - self.newest > RACY_NS


def fingerprint(directory: str, sources: Iterable[tuple[str, str]]) -> Fingerprint:
    """Look at what entries with these (`root`, `from`) copy from `directory`, and at the ignore files. Files
    that are ignored are looked at as well: that asks too much now and then, and never too little."""
    looked = _Look()
    try:
        for root, source in dict.fromkeys(sources):
            top = os.path.join(directory, root)
            looked.one(os.path.join(top, _IGNORE_FILE), may_lack=True)
            looked.tree(os.path.join(top, _fixed(source)))
    except OSError:
        return Fingerprint(None, 0)
    return Fingerprint("\n".join(looked.lines).encode("utf-8", "surrogateescape"), looked.newest)


def _fixed(source: str) -> str:
    """A path up to its first wildcard."""
    parts = source.split("/")
    wild = next((at for at, part in enumerate(parts) if not _GLOB.isdisjoint(part)), len(parts))
    return "/".join(parts[:wild])


class _Look:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.newest = 0

    def one(self, path: str, *, may_lack: bool = False) -> None:
        """Note a path and, for a link, what it leads to."""
        try:
            self._note(path, os.lstat(path))
            self._note(path, os.stat(path))
        except FileNotFoundError:
            if not may_lack:
                raise
            self.lines.append(path)

    def tree(self, top: str) -> None:
        """Note a path and all that is below it. Links are not followed, but the path itself is."""
        self.one(top)
        if not os.path.isdir(top):
            return
        waiting = [top]
        while waiting:
            here = waiting.pop()
            with os.scandir(here) as listing:
                entries = sorted((entry.name, entry) for entry in listing)
            for name, entry in entries:
                if name == _ALWAYS_IGNORED:
                    continue
                self._note(name, entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)

    def _note(self, name: str, about: os.stat_result) -> None:
        mtime, ctime = about.st_mtime_ns, about.st_ctime_ns
        if ctime > self.newest or mtime > self.newest:
            self.newest = max(mtime, ctime, self.newest)
        self.lines.append(
            f"{name}\0{about.st_dev}:{about.st_ino} {about.st_mode} {about.st_size} {mtime} {ctime}"
        )
