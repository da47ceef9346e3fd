"""Users and groups, as /etc/passwd and /etc/group of a tree have them."""

from __future__ import annotations

from sandboxfile.engines.memory.filesystem import Credentials, Filesystem


def names(files: Filesystem, table: str) -> dict[int, str]:
    """Names by number of /etc/passwd or /etc/group; empty when there is no such file."""
    if not files.exists(table):
        return {}
    lines = [line.split(":") for line in files.read(table).decode().splitlines()]
    return {int(line[2]): line[0] for line in lines if len(line) > 2}


def credentials(files: Filesystem, user: str) -> Credentials:
    """The ids that `USER[:GROUP]` stands for, by names or numbers. KeyError for an unknown name."""
    name, mark, group = user.partition(":")
    rows = []
    if files.exists("/etc/passwd"):
        rows = [line.split(":") for line in files.read("/etc/passwd").decode().splitlines()]
    row = next((r for r in rows if len(r) > 3 and name in (r[0], r[2])), None)
    if row is None and not name.isdecimal():
        if name != "root":
            raise KeyError(name)
        row = ["root", "x", "0", "0"]
    uid = int(row[2]) if row else int(name)
    gid = int(row[3]) if row else 0
    if mark:
        by_name = {group_name: number for number, group_name in names(files, "/etc/group").items()}
        gid = int(group) if group.isdecimal() else by_name[group]
    return Credentials(uid, gid)
