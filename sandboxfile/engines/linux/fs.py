"""`Sandbox.fs` of the linux engine: a worker with the sandbox's ids finds, this process moves the bytes."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from sandboxfile.engine.files import (
    READ_LIMIT,
    DirectoryEntry,
    FileInfo,
    GuestPath,
    SandboxFiles,
    check_data,
    check_mode,
    guest_path,
    kind_of,
)
from sandboxfile.engines.linux import fs_bytes
from sandboxfile.engines.linux.fs_channel import FilesChannel
from sandboxfile.engines.linux.users import LARGEST, Identity, NoSuchUser, resolve_user
from sandboxfile.errors import UsageError

_ROOT = Identity(0, 0)
_PASSWD_LIMIT = 1 << 20


class LinuxFiles(SandboxFiles):
    """The files of one sandbox, with the rights of one user."""

    def __init__(self, channel: FilesChannel, user: str = "root") -> None:
        self._channel = channel
        self._moves = channel.transfers
        self._user = user
        self._identity = _ROOT if user == "root" else None

    def as_user(self, user: str) -> LinuxFiles:
        """The same files with another user's rights."""
        return LinuxFiles(self._channel, user)

    async def close(self) -> None:
        """End the worker behind these files."""
        await self._channel.close()

    async def _who(self) -> Identity:
        if self._identity is None:
            passwd, group = [await self._root_text(f"/etc/{name}") for name in ("passwd", "group")]
            try:
                self._identity = resolve_user(self._user, passwd, group)
            except NoSuchUser as error:
                raise UsageError(str(error)) from None
        return self._identity

    async def _root_text(self, path: str) -> str:
        try:
            descriptor = await self._channel.open(path, _ROOT)
        except FileNotFoundError:
            return ""
        data = await self._moves.run(partial(fs_bytes.read, descriptor, path, _PASSWD_LIMIT))
        return data.decode("utf-8", "replace")

    async def _ask(self, op: str, path: GuestPath, **arguments: Any) -> Any:
        return await self._channel.ask(op, guest_path(path), await self._who(), **arguments)

    async def read_file(self, path: GuestPath, *, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a file."""
        name = guest_path(path)
        descriptor = await self._channel.open(name, await self._who())
        return await self._moves.run(partial(fs_bytes.read, descriptor, name, limit))

    async def read_into(self, path: GuestPath, descriptor: int, *, limit: int | None = None) -> int:
        """Write a file's bytes to a descriptor."""
        name = guest_path(path)
        target = os.dup(descriptor)
        try:
            source = await self._channel.open(name, await self._who())
        except BaseException:
            os.close(target)
            raise
        return await self._moves.run(partial(fs_bytes.copy, source, target, name, limit))

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
        descriptor = await self._channel.open(
            guest_path(path),
            await self._who(),
            write=True,
            mode=mode,
            create=create,
            create_new=create_new,
            append=append,
        )
        await self._moves.run(partial(fs_bytes.write, descriptor, data, guest_path(path)))

    async def write_from(
        self, path: GuestPath, descriptor: int, *, mode: int | None = None, create_new: bool = False
    ) -> int:
        """Write a file from a descriptor."""
        check_mode(mode)
        name = guest_path(path)
        source = os.dup(descriptor)
        try:
            target = await self._channel.open(
                name, await self._who(), write=True, mode=mode, create=True, create_new=create_new
            )
        except BaseException:
            os.close(source)
            raise
        return await self._moves.run(partial(fs_bytes.copy, source, target, name, None))

    async def mkdir(self, path: GuestPath, *, recursive: bool = False, mode: int | None = None) -> None:
        """Make a directory."""
        check_mode(mode)
        await self._ask("mkdir", path, recursive=recursive, mode=mode)

    async def read_dir(self, path: GuestPath) -> tuple[DirectoryEntry, ...]:
        """What is in a directory."""
        entries = await self._ask("read_dir", path)
        return tuple(DirectoryEntry(name, kind_of(mode)) for name, mode in sorted(entries))

    async def stat(self, path: GuestPath) -> FileInfo:
        """About an entry, links followed."""
        return _info(await self._ask("stat", path, follow=True))

    async def lstat(self, path: GuestPath) -> FileInfo:
        """About an entry itself."""
        return _info(await self._ask("stat", path, follow=False))

    async def remove(self, path: GuestPath, *, recursive: bool = False) -> None:
        """Remove an entry."""
        await self._ask("remove", path, recursive=recursive)

    async def rename(self, source: GuestPath, target: GuestPath) -> None:
        """Rename an entry."""
        await self._ask("rename", source, target=guest_path(target))

    async def copy_file(self, source: GuestPath, target: GuestPath) -> None:
        """Copy a file."""
        who = await self._who()
        taken = await self._channel.open(guest_path(source), who)
        try:
            mode = os.fstat(taken).st_mode & 0o777
            # Not emptied on opening: it may be the source itself.
            made = await self._channel.open(
                guest_path(target), who, write=True, create=True, append=True, mode=mode
            )
        except BaseException:
            os.close(taken)
            raise
        await self._moves.run(partial(fs_bytes.replace, taken, made, guest_path(target)))

    async def link(self, source: GuestPath, target: GuestPath) -> None:
        """Give a file a second name."""
        await self._ask("link", source, target=guest_path(target))

    async def symlink(self, target: GuestPath, path: GuestPath) -> None:
        """Make a symbolic link."""
        await self._ask("symlink", path, target=guest_path(target))

    async def read_link(self, path: GuestPath) -> str:
        """What a symbolic link says."""
        return str(await self._ask("read_link", path))

    async def real_path(self, path: GuestPath) -> str:
        """The path without links."""
        return str(await self._ask("real_path", path))

    async def chmod(self, path: GuestPath, mode: int) -> None:
        """Set permission bits."""
        check_mode(mode)
        await self._ask("chmod", path, mode=mode)

    async def chown(self, path: GuestPath, uid: int | None = None, gid: int | None = None) -> None:
        """Set the owner."""
        for number in (uid, gid):
            if number is not None and not 0 <= number <= LARGEST:
                raise UsageError(f"the id {number} is outside of 0 to {LARGEST}, which a sandbox has")
        await self._ask("chown", path, uid=-1 if uid is None else uid, gid=-1 if gid is None else gid)

    async def utime(self, path: GuestPath, accessed: float, modified: float) -> None:
        """Set times."""
        await self._ask("utime", path, accessed=accessed, modified=modified)

    async def truncate(self, path: GuestPath, length: int = 0) -> None:
        """Set a file's length."""
        if length < 0:
            raise UsageError("a file cannot be shorter than nothing")
        await self._ask("truncate", path, length=length)

    async def make_temp_dir(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make a directory of a new name."""
        return await self._temporary(directory, prefix, suffix, is_directory=True)

    async def make_temp_file(
        self, *, directory: GuestPath = "/tmp", prefix: str = "", suffix: str = ""
    ) -> str:
        """Make an empty file of a new name."""
        return await self._temporary(directory, prefix, suffix, is_directory=False)

    async def _temporary(self, directory: GuestPath, prefix: str, suffix: str, *, is_directory: bool) -> str:
        for part in (prefix, suffix):
            if "/" in guest_path(part):
                raise UsageError(f"{part!r} cannot be a part of a name")
        name = await self._ask("temporary", directory, prefix=prefix, suffix=suffix, directory=is_directory)
        return f"{guest_path(directory).rstrip('/')}/{name}"


def _info(values: list[float]) -> FileInfo:
    mode, size, uid, gid, links, inode = (int(value) for value in values[:6])
    accessed, modified, changed = values[6:]
    return FileInfo(kind_of(mode), size, mode & 0o7777, uid, gid, links, inode, accessed, modified, changed)
