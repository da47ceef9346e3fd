"""Which ids of the host the sandboxes' ids 0 to 65535 are.

A store belongs to one mapping, recorded in its `idmap.json`: layers on disk are shifted by it. As root the
range is one that no line of /etc/subuid or /etc/subgid covers, so that no user's containers share it. An
ordinary user has the range that those files give.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from sandboxfile.declared import dataclass
from sandboxfile.engines.linux.layers import storing
from sandboxfile.errors import EngineError, HostError

RANGE = 65536
_FIRST_FREE = 0x30000
_LAST_FREE = 0xFFFF0000 - RANGE
RECORD = "idmap.json"


@dataclass(frozen=True)
class IdMap:
    """The mapping of one store.

    mode:      `root`, or `user` for an ordinary user
    uid, gid:  the host's ids of the sandboxes' user 0 and group 0
    """

    mode: str
    uid: int
    gid: int

    @property
    def guest_uid(self) -> int:
        """The sandboxes' user 0 as the helper sees it; an ordinary user's helper is in a namespace where
        its own user is 0 and the subordinate range follows."""
        return self.uid if self.mode == "root" else 1

    @property
    def guest_gid(self) -> int:
        """The sandboxes' group 0 as the helper sees it."""
        return self.gid if self.mode == "root" else 1

    def write_outer_map(self, pid: int) -> None:
        """Give an ordinary user's helper its ids. Raises HostError."""
        for tool, own, start, file in (
            ("newuidmap", os.getuid(), self.uid, "/etc/subuid"),
            ("newgidmap", os.getgid(), self.gid, "/etc/subgid"),
        ):
            argv = [tool, str(pid), "0", str(own), "1", "1", str(start), str(RANGE)]
            try:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise HostError(f"`{tool}` is missing", hint="sudo apt-get install uidmap") from None
            if done.returncode:
                raise HostError(
                    f"`{tool}` refused the ids that {file} gives: {done.stderr.strip()}",
                    hint="sudo apt-get install --reinstall uidmap",
                )


def load_ids(home: Path) -> IdMap:
    """The mapping of a store, chosen and recorded when it has none. Raises HostError, EngineError."""
    record = home / RECORD
    try:
        known = json.loads(record.read_text())
        ids = IdMap(known["mode"], known["uid"], known["gid"])
    except FileNotFoundError:
        ids = choose_ids()
        with storing():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = record.with_name(f".{RECORD}.{os.getpid()}")
            beside.write_text(json.dumps({"mode": ids.mode, "uid": ids.uid, "gid": ids.gid}) + "\n")
            try:
                os.link(beside, record)
            except FileExistsError:
                return load_ids(home)
            finally:
                beside.unlink()
    except (ValueError, KeyError) as error:
        raise EngineError(f"{record} is damaged", hint="remove the store, or restore that file") from error
    if ids.mode != ("root" if os.geteuid() == 0 else "user"):
        raise EngineError(
            f"the store {home} was made by {'root' if ids.mode == 'root' else 'an ordinary user'}",
            hint="set SANDBOXFILE_HOME to another directory",
        )
    if ids.mode == "user":
        for file, start in (("/etc/subuid", ids.uid), ("/etc/subgid", ids.gid)):
            if not any(low <= start and start + RANGE <= low + n for low, n in own_ranges(file)):
                raise HostError(
                    f"{file} no longer gives you the ids this store was made with",
                    hint=f"restore the line `{_user()}:{start}:{RANGE}` in {file}, or use another store",
                )
    return ids


def choose_ids() -> IdMap:
    """A mapping for a new store. Raises HostError when an ordinary user has no ids to give away."""
    if os.geteuid() == 0:
        start = free_range(subordinate_lines("/etc/subuid") + subordinate_lines("/etc/subgid"))
        return IdMap("root", start, start)
    starts = []
    for file in ("/etc/subuid", "/etc/subgid"):
        fitting = [low for low, count in own_ranges(file) if count >= RANGE]
        if not fitting:
            raise HostError(f"{file} gives you no range of {RANGE} ids", hint=subordinate_remedy())
        starts.append(fitting[0])
    if not shutil.which("newuidmap"):
        raise HostError("`newuidmap` is missing", hint="sudo apt-get install uidmap")
    return IdMap("user", starts[0], starts[1])


def subordinate_remedy() -> str:
    """The command that gives this user subordinate ids."""
    return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {_user()}"


def free_range(taken: list[tuple[str, int, int]]) -> int:
    """The first aligned range above the usual ones that touches none of the given ones."""
    start = _FIRST_FREE
    while start < _LAST_FREE:
        clash = [low + count for _, low, count in taken if low < start + RANGE and start < low + count]
        if not clash:
            return start
        start = -(-max(clash) // RANGE) * RANGE
    raise HostError("no range of 65536 user ids is free", hint="remove unused lines from /etc/subuid")


def subordinate_lines(file: str) -> list[tuple[str, int, int]]:
    """The lines of /etc/subuid or /etc/subgid: owner, first id, count. Broken lines are passed over."""
    found = []
    try:
        text = Path(file).read_text()
    except OSError:
        return []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            found.append((owner, int(numbers[0]), int(numbers[1])))
    return found


def own_ranges(file: str) -> list[tuple[int, int]]:
    """The ranges that a file gives to this user, by name or by number."""
    names = (_user(), str(os.getuid()))
    return [(low, count) for owner, low, count in subordinate_lines(file) if owner in names]


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
