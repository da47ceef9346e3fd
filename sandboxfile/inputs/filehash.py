"""Digests of files on this machine, remembered by what the kernel says about a file.

Content is hashed, never guessed: a remembered digest is used only while device, inode, size and both
times are the same, and is not remembered at all when the file was touched so shortly before that one
more write could leave those times as they are ("racily clean", git's word).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any, NamedTuple, Protocol

_CHUNK = 1 << 20
_RACY_NS = 2_000_000_000


class FileKey(NamedTuple):
    """What must be unchanged for a remembered digest to be believed. Times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class StatCache(Protocol):
    """Remembers digests of files (sha256, hex) by FileKey."""

    def get(self, key: Any, /) -> str | None:
        """The digest remembered for a FileKey, if any."""
        ...

    def put(self, key: Any, sha256: str, /) -> None:
        """Remember the digest of the file with a FileKey."""
        ...


class NotAFileError(OSError):
    """What stands at a path is no regular file any more."""


class FileHasher:
    """Computes sha256 digests of regular files, asking `cache` first when there is one."""

    def __init__(self, cache: StatCache | None = None) -> None:
        self._cache = cache

    def digest(self, path: str | os.PathLike[str]) -> tuple[str, os.stat_result]:
        """The digest (hex) of the file at `path` and the status that belongs to it.

        Symlinks are not followed. Raises NotAFileError for anything but a regular file, OSError when it
        cannot be read or keeps changing while it is read.
        """
        before = os.lstat(path)
        if not stat.S_ISREG(before.st_mode):
            raise NotAFileError(f"{os.fspath(path)} is not a regular file")
        if self._cache is not None and (known := self._cache.get(_key(before))) is not None:
            return known, before
        for _ in range(3):
            # Not blocking: the path may have become a fifo since it was looked at.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise NotAFileError(f"{os.fspath(path)} is not a regular file")
                now = time.time_ns()
                sha256 = _hash(descriptor)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if _key(before) == _key(after):
                if self._cache is not None and now - max(after.st_mtime_ns, after.st_ctime_ns) > _RACY_NS:
                    self._cache.put(_key(after), sha256)
                return sha256, after
        raise OSError(f"{os.fspath(path)} changes while it is read")


def _hash(descriptor: int) -> str:
    state = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK):
        state.update(chunk)
    return state.hexdigest()


def _key(status: os.stat_result) -> FileKey:
    return FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
