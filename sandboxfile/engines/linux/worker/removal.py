"""Removing what lies in a running sandbox, which may put more there at the same moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from sandboxfile.engines.linux import syscalls as sys_

_DEEP = 200
_ROUNDS = 8
_MOST_ROUNDS = 4000


class Removal:
    """Taking a tree apart, directory by directory; bounded, whatever is put into it meanwhile."""

    def __init__(self) -> None:
        self._top = -1
        self._moved = 0

    def directory(self, parent: int, name: bytes, depth: int) -> None:
        """Remove a directory and what is in it. EBUSY when something is mounted there."""
        check_no_mount(parent, name)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(name, flags, dir_fd=parent)
        try:
            if depth == 0:
                self._top = directory
            self._empty(directory, depth)
        finally:
            os.close(directory)
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass

    def _empty(self, directory: int, depth: int) -> None:
        rounds = 0
        while rounds < _ROUNDS + (min(self._moved, _MOST_ROUNDS) if depth == 0 else 0):
            rounds += 1
            entries = list(listed(directory))
            if not entries:
                return
            for name, mode in entries:
                try:
                    if not stat.S_ISDIR(mode):
                        check_no_mount(directory, name)
                        os.unlink(name, dir_fd=directory)
                    elif depth < _DEEP:
                        self.directory(directory, name, depth + 1)
                    else:
                        self._lift(directory, name)
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    # It went or changed meanwhile; the next round sees what is there now.
                    pass
        raise OSError(errno.ENOTEMPTY, "")

    def _lift(self, directory: int, name: bytes) -> None:
        """Move a directory that is too deep to the top of the tree."""
        self._moved += 1
        new = b".removed-%d-%s" % (self._moved, os.urandom(4).hex().encode())
        try:
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=self._top)
        except OSError as error:
            # An overlay cannot move directories of lower layers; those are never that deep.
            if error.errno == errno.EXDEV:
                raise OSError(errno.ENAMETOOLONG, "") from None
            raise


def listed(directory: int) -> Iterator[tuple[bytes, int]]:
    """Names in a directory, and what they are (`S_IFMT` of the mode)."""
    with os.scandir(directory) as listing:
        for entry in listing:
            if entry.is_symlink():
                kind = stat.S_IFLNK
            elif entry.is_dir(follow_symlinks=False):
                kind = stat.S_IFDIR
            elif entry.is_file(follow_symlinks=False):
                kind = stat.S_IFREG
            else:
                try:
                    kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                except FileNotFoundError:
                    continue
            yield os.fsencode(entry.name), kind


def check_no_mount(parent: int, name: bytes) -> None:
    """Raise EBUSY when something is mounted on an entry. The kernel refuses that only in the namespace that
    has the mount; for this process it would take the mount away."""
    if sys_.is_mount(parent, name):
        raise OSError(errno.EBUSY, "")
