"""Files of a running sandbox, seen from outside: `Sandbox.fs`.

Paths are the sandbox's own, read from its root directory (`tmp/x` is `/tmp/x`); text, or bytes for names that
are no UTF-8 (they come back as text with surrogate escapes). Links and `..` lead nowhere but inside, whatever
the sandbox does at the same moment. What fails raises Python's own OSError for it (FileNotFoundError,
PermissionError, IsADirectoryError, ...) with the path as the sandbox knows it; FIFOs, sockets, devices and
the kernel's files (/proc, /sys) are FileRefused, more bytes than a limit FileTooLarge.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import field
from enum import StrEnum
from pathlib import Path, PurePath

from sandboxfile.declared import dataclass
from sandboxfile.errors import FileRefused, UsageError

GuestPath = str | bytes | PurePath
READ_LIMIT = 256 << 20
"""How many bytes one read gives unless it is told otherwise."""
DOWNLOAD_LIMIT = 4 << 30
"""How many bytes one download takes unless it is told otherwise."""


class FileKind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHAR_DEVICE = "char-device"
    BLOCK_DEVICE = "block-device"


_KINDS = {
    stat.S_IFREG: FileKind.FILE,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMLINK,
    stat.S_IFIFO: FileKind.FIFO,
    stat.S_IFSOCK: FileKind.SOCKET,
    stat.S_IFCHR: FileKind.CHAR_DEVICE,
    stat.S_IFBLK: FileKind.BLOCK_DEVICE,
}


def kind_of(mode: int) -> FileKind:
    """The kind that a mode (as in `st_mode`) says."""
    return _KINDS.get(stat.S_IFMT(mode), FileKind.FILE)


@dataclass(frozen=True)
class FileInfo:
    """What is known of an entry. Sizes in bytes, times in seconds since 1970, ids as in the sandbox; `mode`
    holds the permission bits only."""

    kind: FileKind
    size: int
    mode: int
    uid: int
    gid: int
    links: int = 1
    inode: int = 0
    accessed: float = 0.0
    modified: float = 0.0
    changed: float = 0.0

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind is FileKind.FILE

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind is FileKind.DIRECTORY

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link (from `lstat` only)."""
        return self.kind is FileKind.SYMLINK


@dataclass(frozen=True)
class DirectoryEntry:
    """A name in a directory; `kind` does not follow links."""

    name: str
    kind: FileKind

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind is FileKind.FILE

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind is FileKind.DIRECTORY

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.kind is FileKind.SYMLINK


@dataclass(frozen=True)
class WalkEntry:
    """An entry that a walk met; `path` starts with the path that was walked."""

    path: str
    name: str
    kind: FileKind


@dataclass
class Transfer:
    """What an upload or download moved. `skipped` are the paths of what is neither file nor directory, and
    of links where those were not wanted."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)


class SandboxFiles(ABC):
    """Operations on a sandbox's files, with the rights of one of its users (`as_user`; root at first)."""

    @abstractmethod
    def as_user(self, user: str) -> SandboxFiles:
        """The same files with another user's rights, who also owns what is made: `name`, `uid`,
        `user:group`. An unknown user is a UsageError of the first operation."""

    @abstractmethod
    async def read_file(self, path: GuestPath, *, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a file, at most `limit` (FileTooLarge)."""

    @abstractmethod
    async def read_into(self, path: GuestPath, descriptor: int, *, limit: int | None = None) -> int:
        """Write a file's bytes to a descriptor of the caller; how many. `limit` as in `read_file`."""

    @abstractmethod
    async def write_file(
        self,
        path: GuestPath,
        data: bytes,
        *,
        mode: int | None = None,
        create: bool = True,
        create_new: bool = False,
        append: bool = False,
    ) -> None:
        """Write a file: its whole content, or with `append` at its end.

        mode:       permission bits it gets, also when it is there already; a new file gets 0644 otherwise
        create:     whether it is made when it is missing (else FileNotFoundError)
        create_new: whether it must be missing (else FileExistsError)
        """

    @abstractmethod
    async def write_from(
        self, path: GuestPath, descriptor: int, *, mode: int | None = None, create_new: bool = False
    ) -> int:
        """Write a file from a descriptor of the caller, to its end; how many bytes."""

    @abstractmethod
    async def mkdir(self, path: GuestPath, *, recursive: bool = False, mode: int | None = None) -> None:
        """Make a directory (0755 unless `mode` is given). With `recursive`, missing parents too, and it may
        be there already."""

    @abstractmethod
    async def read_dir(self, path: GuestPath) -> tuple[DirectoryEntry, ...]:
        """What is in a directory, sorted by name."""

    @abstractmethod
    async def stat(self, path: GuestPath) -> FileInfo:
        """About an entry, links followed."""

    @abstractmethod
    async def lstat(self, path: GuestPath) -> FileInfo:
        """About an entry, a link itself not followed."""

    @abstractmethod
    async def remove(self, path: GuestPath, *, recursive: bool = False) -> None:
        """Remove a file, a link, an empty directory, or with `recursive` a whole tree. Mounts in the tree
        are OSError EBUSY."""

    @abstractmethod
    async def rename(self, source: GuestPath, target: GuestPath) -> None:
        """Rename an entry, in place of a file that is at `target`. Directories of lower layers cannot be
        renamed by an overlay: OSError EXDEV."""

    @abstractmethod
    async def copy_file(self, source: GuestPath, target: GuestPath) -> None:
        """Copy a file's bytes and permission bits, in place of what is in `target`."""

    @abstractmethod
    async def link(self, source: GuestPath, target: GuestPath) -> None:
        """Give a file a second name."""

    @abstractmethod
    async def symlink(self, target: GuestPath, path: GuestPath) -> None:
        """Make a symbolic link at `path` that says `target`, whatever that is."""

    @abstractmethod
    async def read_link(self, path: GuestPath) -> str:
        """What a symbolic link says. OSError EINVAL when it is none."""

    @abstractmethod
    async def real_path(self, path: GuestPath) -> str:
        """The path without links."""

    @abstractmethod
    async def chmod(self, path: GuestPath, mode: int) -> None:
        """Set the permission bits of a file or directory, links followed."""

    @abstractmethod
    async def chown(self, path: GuestPath, uid: int | None = None, gid: int | None = None) -> None:
        """Set the owner, links followed; None leaves it."""

    @abstractmethod
    async def utime(self, path: GuestPath, accessed: float, modified: float) -> None:
        """Set the times of a file or directory, in seconds since 1970."""

    @abstractmethod
    async def truncate(self, path: GuestPath, length: int = 0) -> None:
        """Cut a file, or fill it with zeros, to a length in bytes."""

    @abstractmethod
    async def make_temp_dir(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make a directory (0700) of a new name; its path."""

    @abstractmethod
    async def make_temp_file(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make an empty file (0600) of a new name; its path."""

    async def exists(self, path: GuestPath) -> bool:
        """Whether there is something at a path, links followed."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def read_text_file(
        self, path: GuestPath, *, encoding: str = "utf-8", errors: str = "strict", limit: int = READ_LIMIT
    ) -> str:
        """A file's text. Raises UnicodeDecodeError where it is none."""
        return (await self.read_file(path, limit=limit)).decode(encoding, errors)

    async def write_text_file(
        self,
        path: GuestPath,
        text: str,
        *,
        encoding: str = "utf-8",
        mode: int | None = None,
        create: bool = True,
        create_new: bool = False,
        append: bool = False,
    ) -> None:
        """Write text; the options are those of `write_file`."""
        data = text.encode(encoding)
        await self.write_file(path, data, mode=mode, create=create, create_new=create_new, append=append)

    async def walk(self, path: GuestPath = "/", *, max_depth: int | None = None) -> AsyncIterator[WalkEntry]:
        """Everything below a directory, a directory before what is in it. Links are not followed, the
        kernel's directories not entered, and what vanishes meanwhile is passed over."""
        top = guest_path(path)
        waiting = [(top, 1)]
        while waiting:
            here, depth = waiting.pop()
            try:
                entries = await self.read_dir(here)
            except (FileNotFoundError, NotADirectoryError, FileRefused):
                if here == top:
                    raise
                continue
            below = []
            for entry in entries:
                found = f"{here.rstrip('/')}/{entry.name}"
                yield WalkEntry(found, entry.name, entry.kind)
                if entry.is_directory and (max_depth is None or depth < max_depth):
                    below.append((found, depth + 1))
            waiting += reversed(below)

    async def upload(self, source: Path | str, target: GuestPath) -> Transfer:
        """Copy a file or a directory tree of this machine into the sandbox: permission bits and links are
        kept, owners are this user. Directories that are there are filled, files replaced."""
        from sandboxfile.engine.filetrees import upload

        return await upload(self, Path(source), guest_path(target))

    async def download(
        self,
        source: GuestPath,
        target: Path | str,
        *,
        links: bool = False,
        limit: int = DOWNLOAD_LIMIT,
    ) -> Transfer:
        """Copy a file or a directory tree out of the sandbox. `target` must not exist (FileExistsError).
        Nothing is written outside of it whatever the sandbox does meanwhile; set-user-id bits and owners
        are left behind. Links are made (as they are, wherever they point) when `links` says so, else they
        are in `skipped`. More bytes than `limit` in all are FileTooLarge."""
        from sandboxfile.engine.filetrees import download

        return await download(self, guest_path(source), Path(target), links=links, limit=limit)


def guest_path(path: GuestPath) -> str:
    """A path as text, with surrogate escapes. Raises UsageError for what can be no path."""
    if isinstance(path, PurePath):
        path = str(path)
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    if not isinstance(text, str):
        raise UsageError(f"a path is text, bytes or a path object, not {type(path).__name__}")
    if "\0" in text:
        raise UsageError("a path cannot hold a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"the path {text!r} cannot be a name of a file") from None
    return text


def check_mode(mode: int | None) -> None:
    """Raise UsageError unless a mode is nothing but permission bits."""
    if mode is not None and not 0 <= mode <= 0o7777:
        raise UsageError(f"the mode {mode:o} is none: permission bits are 0 to 7777")


def check_data(data: object) -> None:
    """Raise UsageError unless something is bytes."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UsageError(
            f"a file holds bytes, not {type(data).__name__}", hint="use `write_text_file` for text"
        )
