"""Who a command runs as: names looked up in a root file system's passwd and group files. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sandboxfile.declared import dataclass

LARGEST = 65535


class NoSuchUser(ValueError):
    """A user or group that the root file system does not have."""


@dataclass(frozen=True)
class Identity:
    """Numeric ids of a process."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve_user(user: str, passwd: str, group: str) -> Identity:
    """The ids for `name`, `uid`, `user:group` with each part a name or a number. Raises NoSuchUser."""
    wanted, _, wanted_group = user.partition(":")
    uid, gid, home, name = _number(wanted), 0, "/", ""
    for fields in _rows(passwd, 7):
        if fields[0] == wanted or (uid is not None and fields[2] == str(uid)):
            uid, gid, home, name = int(fields[2]), int(fields[3]), fields[5] or "/", fields[0]
            break
    if uid is None and wanted == "root":
        uid = 0
    if uid is None:
        raise NoSuchUser(f"there is no user `{wanted}`")
    if wanted_group:
        return Identity(uid, _group(wanted_group, group), (), home)
    groups = [int(row[2]) for row in _rows(group, 4) if name and name in row[3].split(",")]
    return Identity(uid, gid, tuple(sorted({each for each in groups if each != gid})), home)


def resolve_owner(owner: str, passwd: str, group: str) -> tuple[int, int]:
    """The ids for an owner `uid:gid` or `user:group`. Raises NoSuchUser."""
    identity = resolve_user(owner, passwd, group)
    return identity.uid, identity.gid


def _group(wanted: str, group: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for fields in _rows(group, 4):
        if fields[0] == wanted:
            return int(fields[2])
    if wanted == "root":
        return 0
    raise NoSuchUser(f"there is no group `{wanted}`")


def _number(text: str) -> int | None:
    if not text.isdecimal() or not text.isascii():
        return None
    if int(text) > LARGEST:
        raise NoSuchUser(f"the id {text} is larger than {LARGEST}, the largest a sandbox has")
    return int(text)


def _rows(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= count and fields[2].isdecimal() and (count < 7 or fields[3].isdecimal()):
            yield fields
