"""The bytes of packages, unpacked side by side into directories of their own.

Regular files, and hard links to them, get a number for a name: no name from a package reaches the file system
before everything that is known of all packages has been looked at (`placing`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.users import LARGEST
from sandboxfile.engines.linux.worker.tasks import TaskFailed
from sandboxfile.inputs.debfile import Content, Deb, DebError, Entry

_MOST_PROCESSES = 8
_NUMBER = struct.Struct("=I")
_MOST_PACKAGES = 16_000
"""As many numbers as a pipe takes without anybody reading."""


@dataclass(frozen=True)
class Accounts:
    """Ids by name, as the root's passwd and group files have them."""

    users: Mapping[str, int]
    groups: Mapping[str, int]

    def owner(self, entry: Entry) -> tuple[int, int]:
        """The ids of an entry's owner: by name where the name is known, as dpkg does."""
        uid = self.users.get(os.fsdecode(entry.user), entry.uid)
        gid = self.groups.get(os.fsdecode(entry.group), entry.gid)
        if uid > LARGEST or gid > LARGEST:
            raise DebError(f"an owner in it is above {LARGEST}")
        return uid, gid


class Staged(NamedTuple):
    """One entry of an unpacked package, names as `os.fsdecode` gives them.

    number: the name its bytes have in the package's directory; -1 for directories and symbolic links
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    time: int
    target: str
    number: int


Unpacked = list[Staged] | str
"""The entries of a package in the order of dpkg's list, or why it cannot be unpacked."""


def unpack_all(
    debs: int, names: Sequence[str], sizes: Sequence[int], stage: int, accounts: Accounts
) -> list[Unpacked]:
    """Unpack the packages in the directory `debs`, in a process for each processor, the largest first.

    stage: a directory; the bytes of the package at position N go to `N/` in it
    """
    if len(names) > _MOST_PACKAGES:
        return ["there are too many packages"] * len(names)
    for number in range(len(names)):
        os.mkdir(str(number), 0o700, dir_fd=stage)
    found: dict[int, Unpacked] = {}
    jobs, fill = os.pipe2(os.O_CLOEXEC)
    try:
        for number in sorted(range(len(names)), key=lambda number: (-sizes[number], number)):
            os.write(fill, _NUMBER.pack(number))
    finally:
        os.close(fill)
    children: list[int] = []
    try:
        with selectors.DefaultSelector() as waiting:
            for _ in range(min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, len(names))):
                answers, answer = os.pipe2(os.O_CLOEXEC)
                waiting.register(answers, selectors.EVENT_READ, bytearray())
                children.append(_start(jobs, answer, debs, names, stage, accounts))
                os.close(answer)
            while waiting.get_map():
                for key, _ in waiting.select():
                    if piece := os.read(key.fd, 1 << 16):
                        key.data.extend(piece)
                        continue
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    _take(key.data, found)
    finally:
        os.close(jobs)
        for child in children:
            os.waitpid(child, 0)
    if len(found) < len(names):
        raise TaskFailed("a process that unpacked packages ended too early")
    return [found[number] for number in range(len(names))]


def _start(jobs: int, answer: int, debs: int, names: Sequence[str], stage: int, accounts: Accounts) -> int:
    child = os.fork()
    if child:
        return child
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
        with open(answer, "wb", closefd=False) as out:
            while job := os.read(jobs, _NUMBER.size):
                (number,) = _NUMBER.unpack(job)
                try:
                    said: object = _unpack(debs, names[number], stage, number, accounts)
                except DebError as error:
                    said = str(error)
                except OSError as error:
                    said = {"errno": error.errno, "text": error.strerror or str(error)}
                out.write(json.dumps([number, said]).encode() + b"\n")
    finally:
        os._exit(0)


def _take(answers: bytearray, found: dict[int, Unpacked]) -> None:
    for line in answers.splitlines():
        number, said = json.loads(line)
        if isinstance(said, dict):
            raise OSError(said["errno"], said["text"])
        found[number] = said if isinstance(said, str) else [Staged(*each) for each in said]


def _unpack(debs: int, name: str, stage: int, number: int, accounts: Accounts) -> list[Staged]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=debs), "rb", buffering=0) as file:
        content = Deb(file).content()
        place = os.open(str(number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=stage)
        try:
            return _entries(content, place, accounts)
        finally:
            os.close(place)


def _entries(content: Content, place: int, accounts: Accounts) -> list[Staged]:
    found: list[Staged] = []
    # dpkg makes symbolic links after everything else, and lists them there.
    links: list[Staged] = []
    numbers: dict[bytes, int] = {}
    for entry in content.entries():
        uid, gid = accounts.owner(entry)
        number = -1
        target = os.fsdecode(entry.target)
        if entry.kind in ("file", "link"):
            number = len(numbers)
            if entry.path in numbers:
                raise DebError(f"it holds {entry.path!r} twice")
            if entry.kind == "file":
                _write(content, entry, str(number), place, (uid, gid))
            elif (original := numbers.get(entry.target)) is None:
                raise DebError(f"the hard link {entry.path!r} leads to no file before it")
            else:
                os.link(str(original), str(number), src_dir_fd=place, dst_dir_fd=place)
            numbers[entry.path] = number
        staged = Staged(os.fsdecode(entry.path), entry.kind, entry.mode, uid, gid, entry.time, target, number)
        (links if entry.kind == "symlink" else found).append(staged)
    return found + links


def _write(content: Content, entry: Entry, name: str, place: int, owner: tuple[int, int]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=place)
    try:
        for piece in content.pieces(entry):
            while piece:
                piece = piece[os.write(descriptor, piece) :]
        os.fchown(descriptor, *owner)
        os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, (entry.time, entry.time))
    finally:
        os.close(descriptor)
