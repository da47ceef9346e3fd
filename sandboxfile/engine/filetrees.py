"""Copying trees between this machine and a sandbox, over any `SandboxFiles`.

The side of this machine goes through descriptors of directories: names from the sandbox are single
components, and no link in what was written already is ever followed.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from sandboxfile.engine.files import DirectoryEntry, SandboxFiles, Transfer
from sandboxfile.errors import FileRefused, FileTooLarge

MOST_ENTRIES = 1_000_000
_DEEPEST = 200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


async def upload(files: SandboxFiles, source: Path, target: str) -> Transfer:
    """See `SandboxFiles.upload`."""
    moved = Transfer()
    about = await asyncio.to_thread(source.stat)
    if stat.S_ISDIR(about.st_mode):
        await _make_directory(files, target, about.st_mode, moved)
        for path, mode in await asyncio.to_thread(_listed, source):
            inside = f"{target.rstrip('/')}/{path.relative_to(source).as_posix()}"
            await _send(files, path, mode, inside, moved)
    elif stat.S_ISREG(about.st_mode):
        await _send_file(files, source.resolve(), about.st_mode, target, moved)
    else:
        raise FileRefused(f"{source} is neither a file nor a directory")
    return moved


def _listed(top: Path) -> list[tuple[Path, int]]:
    """Every entry of a local tree with its mode, a directory before what is in it."""
    found: list[tuple[Path, int]] = []
    waiting = [top]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            mode = path.lstat().st_mode
            found.append((path, mode))
            if stat.S_ISDIR(mode):
                waiting.append(path)
    return found


async def _send(files: SandboxFiles, path: Path, mode: int, inside: str, moved: Transfer) -> None:
    if stat.S_ISDIR(mode):
        await _make_directory(files, inside, mode, moved)
    elif stat.S_ISREG(mode):
        await _send_file(files, path, mode, inside, moved)
    elif stat.S_ISLNK(mode):
        said = str(path.readlink())
        try:
            await files.symlink(said, inside)
        except FileExistsError:
            await files.remove(inside)
            await files.symlink(said, inside)
        moved.links += 1
    else:
        moved.skipped.append(str(path))


async def _make_directory(files: SandboxFiles, path: str, mode: int, moved: Transfer) -> None:
    await files.mkdir(path, recursive=True)
    await files.chmod(path, stat.S_IMODE(mode) & 0o777)
    moved.directories += 1


async def _send_file(files: SandboxFiles, path: Path, mode: int, inside: str, moved: Transfer) -> None:
    descriptor = os.open(path, _READ)
    try:
        moved.bytes += await files.write_from(inside, descriptor, mode=stat.S_IMODE(mode) & 0o777)
    finally:
        os.close(descriptor)
    moved.files += 1


class _Download:
    """One download: what it may still take, and what it took."""

    def __init__(self, files: SandboxFiles, *, links: bool, limit: int) -> None:
        self._files = files
        self._links = links
        self._limit = limit
        self.moved = Transfer()

    async def directory(self, path: str, parent: int, name: str, mode: int, depth: int) -> None:
        """Take a directory with all below it into a local directory."""
        if depth > _DEEPEST:
            raise FileTooLarge(f"{path} is more than {_DEEPEST} directories deep")
        entries = await self._files.read_dir(path)
        os.mkdir(name, 0o700, dir_fd=parent)
        here = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self.moved.directories += 1
            for entry in entries:
                await self._entry(f"{path.rstrip('/')}/{entry.name}", here, entry, depth)
            # Last, because a directory without the right to write could not be filled.
            os.fchmod(here, mode & 0o777)
        finally:
            os.close(here)

    async def _entry(self, path: str, here: int, entry: DirectoryEntry, depth: int) -> None:
        if self.moved.files + self.moved.directories + self.moved.links >= MOST_ENTRIES:
            raise FileTooLarge(f"there are more than {MOST_ENTRIES} entries to download")
        if entry.name in ("", ".", "..") or "/" in entry.name:
            raise FileRefused(f"{path!r} is not a name a file can have")
        try:
            about = await self._files.lstat(path)
            if about.is_directory:
                await self.directory(path, here, entry.name, about.mode, depth + 1)
                return
            if about.is_file:
                await self.file(path, here, entry.name, about.mode)
                return
            if about.is_symlink and self._links:
                os.symlink(await self._files.read_link(path), entry.name, dir_fd=here)
                self.moved.links += 1
                return
        except (FileNotFoundError, NotADirectoryError, FileRefused):
            # It was taken away or became something else since its directory was read.
            pass
        self.moved.skipped.append(path)

    async def file(self, path: str, parent: int, name: str, mode: int) -> None:
        """Take a file into a local directory."""
        descriptor = os.open(name, _WRITE, 0o600, dir_fd=parent)
        try:
            left = self._limit - self.moved.bytes
            self.moved.bytes += await self._files.read_into(path, descriptor, limit=left)
            os.fchmod(descriptor, mode & 0o777)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(descriptor)
        self.moved.files += 1


async def download(files: SandboxFiles, source: str, target: Path, *, links: bool, limit: int) -> Transfer:
    """See `SandboxFiles.download`."""
    taking = _Download(files, links=links, limit=limit)
    about = await files.stat(source)
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if about.is_directory:
            await taking.directory(source, parent, target.name, about.mode, 0)
        else:
            await taking.file(source, parent, target.name, about.mode)
    finally:
        os.close(parent)
    return taking.moved
