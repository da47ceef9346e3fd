"""`Sandbox.fs` of the memory engine."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sandboxfile.engine.files import (
    READ_LIMIT,
    DirectoryEntry,
    FileInfo,
    FileKind,
    GuestPath,
    SandboxFiles,
    check_data,
    check_mode,
    guest_path,
)
from sandboxfile.engines.memory.accounts import credentials
from sandboxfile.engines.memory.filesystem import DEVICES, Credentials, Filesystem, Node, failure
from sandboxfile.errors import FileRefused, FileTooLarge, MissingCapability, UsageError

_KINDS = {
    "file": FileKind.FILE,
    "dir": FileKind.DIRECTORY,
    "symlink": FileKind.SYMLINK,
    "device": FileKind.CHAR_DEVICE,
}


class MemoryFiles(SandboxFiles):
    """The tree of a sandbox with the rights of one user. `check` raises when the sandbox has ended."""

    def __init__(self, nodes: dict[str, Node], check: Callable[[], None], user: str = "root") -> None:
        self._nodes = nodes
        self._check = check
        self._user = user

    def as_user(self, user: str) -> MemoryFiles:
        """The same files with another user's rights."""
        return MemoryFiles(self._nodes, self._check, user)

    def _open(self) -> tuple[Filesystem, Credentials]:
        self._check()
        devices = {"/dev": Node("dir", 0o755), **DEVICES}
        files = Filesystem(self._nodes, live=devices)
        try:
            return files, credentials(files, self._user)
        except KeyError as error:
            raise UsageError(f"there is no user `{error.args[0]}`") from None

    def _regular(self, path: GuestPath) -> tuple[Filesystem, Credentials, str, Node | None]:
        """What a path leads to, None where there is nothing. Directories and devices are refused."""
        name = guest_path(path)
        files, who = self._open()
        if not name:
            raise failure(errno.ENOENT, name)
        real = files.resolve(name)
        node = files.stat(real) if files.exists(real) else None
        if node is not None and node.is_dir:
            raise failure(errno.EISDIR, name)
        if node is not None and node.type != "file":
            raise FileRefused(f"{name} is a device, which cannot be reached from outside")
        return files, who, name, node

    async def read_file(self, path: GuestPath, *, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a file."""
        files, who, name, _ = self._regular(path)
        content = files.read(name, who=who)
        if len(content) > limit:
            raise FileTooLarge(f"{name} is longer than the limit of {limit} bytes")
        return content

    async def read_into(self, path: GuestPath, descriptor: int, *, limit: int | None = None) -> int:
        """Write a file's bytes to a descriptor."""
        content = await self.read_file(path, limit=READ_LIMIT if limit is None else limit)
        with open(descriptor, "wb", closefd=False) as file:
            return file.write(content)

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
        """Write a file."""
        check_mode(mode)
        check_data(data)
        files, who, name, node = self._regular(path)
        if node is None and not (create or create_new):
            raise failure(errno.ENOENT, name)
        if node is not None and create_new:
            raise failure(errno.EEXIST, name)
        files.write(name, bytes(data), who=who, append=append)
        if mode is not None:
            files.change(name, who=who, mode=mode)

    async def write_from(
        self, path: GuestPath, descriptor: int, *, mode: int | None = None, create_new: bool = False
    ) -> int:
        """Write a file from a descriptor."""
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read()
        await self.write_file(path, data, mode=mode, create_new=create_new)
        return len(data)

    async def mkdir(self, path: GuestPath, *, recursive: bool = False, mode: int | None = None) -> None:
        """Make a directory."""
        check_mode(mode)
        files, who = self._open()
        name = guest_path(path)
        parts = [part for part in name.split("/") if part]
        for depth in range(1, len(parts)) if recursive else ():
            self._make(files, who, "/" + "/".join(parts[:depth]), 0o755, exist=True)
        self._make(files, who, name, 0o755 if mode is None else mode, exist=recursive)

    def _make(self, files: Filesystem, who: Credentials, name: str, mode: int, *, exist: bool) -> None:
        if exist and files.exists(name):
            if not files.stat(name).is_dir:
                raise failure(errno.ENOTDIR, name)
            return
        files.add(name, Node("dir", mode, who.uid, who.gid), who=who)

    async def read_dir(self, path: GuestPath) -> tuple[DirectoryEntry, ...]:
        """What is in a directory."""
        files, who = self._open()
        name = guest_path(path)
        return tuple(
            DirectoryEntry(each, _KINDS[files.stat(f"{name}/{each}", follow=False).type])
            for each in files.list(name, who=who)
        )

    async def stat(self, path: GuestPath) -> FileInfo:
        """About an entry, links followed."""
        return _info(self._open()[0].stat(guest_path(path)))

    async def lstat(self, path: GuestPath) -> FileInfo:
        """About an entry itself."""
        return _info(self._open()[0].stat(guest_path(path), follow=False))

    async def remove(self, path: GuestPath, *, recursive: bool = False) -> None:
        """Remove an entry."""
        files, who = self._open()
        name = guest_path(path)
        node = files.stat(name, follow=False)
        if files.resolve(name, follow=False) == "/":
            raise failure(errno.EBUSY, name)
        if node.is_dir and not recursive and files.list(name):
            raise failure(errno.ENOTEMPTY, name)
        files.remove(name, who=who)

    async def rename(self, source: GuestPath, target: GuestPath) -> None:
        """Rename an entry."""
        files, who = self._open()
        old, new = guest_path(source), guest_path(target)
        if files.exists(new, follow=False) and files.stat(new, follow=False).is_dir:
            if not files.stat(old, follow=False).is_dir:
                raise failure(errno.EISDIR, new)
            if files.list(new):
                raise failure(errno.ENOTEMPTY, new)
        files.move(old, new, who=who)

    async def copy_file(self, source: GuestPath, target: GuestPath) -> None:
        """Copy a file."""
        content = await self.read_file(source)
        await self.write_file(target, content, mode=(await self.stat(source)).mode & 0o777)

    async def link(self, source: GuestPath, target: GuestPath) -> None:  # noqa: ARG002
        """Refused: an entry has one name here."""
        raise MissingCapability("the memory engine has no hard links", "hard-links")

    async def symlink(self, target: GuestPath, path: GuestPath) -> None:
        """Make a symbolic link."""
        files, who = self._open()
        files.add(
            guest_path(path), Node("symlink", 0o777, who.uid, who.gid, target=guest_path(target)), who=who
        )

    async def read_link(self, path: GuestPath) -> str:
        """What a symbolic link says."""
        node = self._open()[0].stat(guest_path(path), follow=False)
        if node.type != "symlink":
            raise failure(errno.EINVAL, guest_path(path))
        return node.target

    async def real_path(self, path: GuestPath) -> str:
        """The path without links."""
        files, _ = self._open()
        files.stat(guest_path(path))
        return files.resolve(guest_path(path))

    async def chmod(self, path: GuestPath, mode: int) -> None:
        """Set permission bits."""
        check_mode(mode)
        files, who = self._open()
        files.change(guest_path(path), who=who, mode=mode)

    async def chown(self, path: GuestPath, uid: int | None = None, gid: int | None = None) -> None:
        """Set the owner."""
        files, who = self._open()
        for number in (uid, gid):
            if number is not None and not 0 <= number <= 65535:
                raise UsageError(f"the id {number} is outside of 0 to 65535, which a sandbox has")
        if who.uid != 0:
            raise failure(errno.EPERM, guest_path(path))
        if uid is not None:
            files.change(guest_path(path), uid=uid)
        if gid is not None:
            files.change(guest_path(path), gid=gid)

    async def utime(self, path: GuestPath, accessed: float, modified: float) -> None:  # noqa: ARG002
        """Refused: entries have no times here."""
        raise MissingCapability("the memory engine keeps no times", "file-times")

    async def truncate(self, path: GuestPath, length: int = 0) -> None:
        """Set a file's length."""
        if length < 0:
            raise UsageError("a file cannot be shorter than nothing")
        content = (await self.read_file(path))[:length]
        await self.write_file(path, content.ljust(length, b"\0"), create=False)

    async def make_temp_dir(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make a directory of a new name."""
        name = _temporary(directory, prefix, suffix)
        await self.mkdir(name, mode=0o700)
        return name

    async def make_temp_file(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make an empty file of a new name."""
        name = _temporary(directory, prefix, suffix)
        await self.write_file(name, b"", mode=0o600, create_new=True)
        return name


def _temporary(directory: GuestPath, prefix: str, suffix: str) -> str:
    for part in (prefix, suffix):
        if "/" in guest_path(part):
            raise UsageError(f"{part!r} cannot be a part of a name")
    return f"{guest_path(directory).rstrip('/')}/{prefix}{os.urandom(6).hex()}{suffix}"


def _info(node: Node) -> FileInfo:
    size = len(node.content) if node.type == "file" else len(node.target)
    return FileInfo(_KINDS[node.type], size, node.mode & 0o7777, node.uid, node.gid)
