"""Limits of memory, processors and processes by control groups, where the host gives them to us.

Used by the helper, which opens the hierarchies before it covers them (see `mounts.private_view`). A sandbox's
group is `sandboxfile/<id>` below the root of a hierarchy, or below the part of it that is delegated to an
ordinary user. Only the hierarchies that a limit needs get a group.
"""

from __future__ import annotations

import errno
import fcntl
import os

ROOT = "/sys/fs/cgroup"
_TOP = "sandboxfile"
_PERIOD = 100_000
CONTROLLERS = ("memory", "cpu", "pids")
"""What limits need of a v2 hierarchy; the hierarchies of v1 have the same names."""
_UNIFIED = "unified"


def hierarchies(root: str = ROOT) -> dict[str, str]:
    """The directories that groups with limits can be made in: one named `unified` (v2), or one for each
    controller (v1, also beside v2); nothing when the host gives us none. Changes nothing."""
    if os.path.exists(f"{root}/cgroup.controllers"):
        place = _delegated(root)
        return {_UNIFIED: place} if place else {}
    places = {name: f"{root}/{name}" for name in CONTROLLERS}
    return places if all(_writable(place) for place in places.values()) else {}


def freezer(root: str = ROOT) -> str | None:
    """The directory of a v2 hierarchy that groups can be made in, to freeze them; None when there is none.

    The freezer of v1 is not used: what it has frozen cannot be killed, so that a client which is killed at
    the wrong moment would leave processes for ever.
    """
    if os.path.exists(f"{root}/cgroup.controllers"):
        return _delegated(root, controllers=())
    beside = f"{root}/unified"
    return beside if os.path.exists(f"{beside}/cgroup.procs") and _writable(beside) else None


def _writable(place: str) -> bool:
    """Whether we may make groups in `place/sandboxfile`."""
    top = f"{place}/{_TOP}"
    return os.access(top if os.path.isdir(top) else place, os.W_OK) and os.path.exists(
        f"{place}/cgroup.procs"
    )


def _delegated(root: str, controllers: tuple[str, ...] = CONTROLLERS) -> str | None:
    """The highest group above our own that is ours to divide."""
    own = _own_group()
    parts = [part for part in own.split("/") if part]
    for depth in range(len(parts) + 1):
        place = "/".join([root, *parts[:depth]])
        if not os.access(f"{place}/cgroup.procs", os.W_OK) or not os.access(place, os.W_OK):
            continue
        offered = _words(f"{place}/cgroup.controllers")
        given = _words(f"{place}/cgroup.subtree_control")
        # A group with processes of its own, other than the root, cannot give controllers to groups in it.
        dividable = depth == 0 or not _words(f"{place}/cgroup.procs")
        if set(controllers) <= (offered if dividable else given):
            return place
    return None


def _own_group() -> str:
    try:
        with open("/proc/self/cgroup") as file:
            for line in file:
                if line.startswith("0::"):
                    return line[3:].strip()
    except OSError:
        pass
    return ""


def _words(path: str) -> set[str]:
    try:
        with open(path) as file:
            return set(file.read().split())
    except OSError:
        return set()


class Cgroups:
    """The groups of one helper's sandboxes."""

    def __init__(self, root: str = ROOT) -> None:
        self._root = root
        self._tops: dict[str, int] = {}
        self._freezer = -1
        self._unified = False
        self._stale: set[str] = set()
        self._locks: dict[tuple[int, str], int] = {}
        self.look()

    def look(self) -> None:
        """Open what the host gives us now, where there was nothing before."""
        try:
            for name, place in [] if self._tops else hierarchies(self._root).items():
                self._tops[name] = _open_top(place, enable=name == _UNIFIED)
        except OSError:
            # Not ours to write after all: then there are no limits.
            self._tops.clear()
        self._unified = _UNIFIED in self._tops
        try:
            place_to_freeze = freezer(self._root) if self._freezer < 0 else None
            if place_to_freeze:
                self._freezer = _open_top(place_to_freeze, enable=False)
        except OSError:
            self._freezer = -1

    @property
    def usable(self) -> bool:
        """Whether limits can be kept."""
        return bool(self._tops)

    @property
    def can_freeze(self) -> bool:
        """Whether a group of processes can be stopped at once."""
        return self._freezer >= 0

    def make(self, name: str, memory: int | None, cpus: float | None, pids: int | None) -> None:
        """Make the groups of a sandbox. Bytes, cores, processes; None is no limit."""
        if not self._tops:
            raise OSError(errno.EOPNOTSUPP, "control groups cannot be used here")
        if memory is not None:
            if self._unified:
                self._write(_UNIFIED, name, "memory.max", str(memory))
                self._write(_UNIFIED, name, "memory.swap.max", "0", optional=True)
            else:
                self._write("memory", name, "memory.limit_in_bytes", str(memory))
                self._write("memory", name, "memory.memsw.limit_in_bytes", str(memory), optional=True)
        if cpus is not None:
            quota = max(1000, int(cpus * _PERIOD))
            if self._unified:
                self._write(_UNIFIED, name, "cpu.max", f"{quota} {_PERIOD}")
            else:
                self._write("cpu", name, "cpu.cfs_period_us", str(_PERIOD))
                self._write("cpu", name, "cpu.cfs_quota_us", str(quota))
        if pids is not None:
            self._write(_UNIFIED if self._unified else "pids", name, "pids.max", str(pids))

    def join(self, name: str) -> None:
        """Move the calling process into a sandbox's groups."""
        for top in self._tops.values():
            # Elsewhere no limit of this sandbox needs a group.
            if (top, name) in self._locks:
                _put(top, f"{name}/cgroup.procs", "0")

    def killed(self, name: str) -> int:
        """How many processes of a sandbox were ended for want of memory."""
        file = "memory.events" if self._unified else "memory.oom_control"
        top = self._tops.get(_UNIFIED if self._unified else "memory", -1)
        return _field(top, f"{name}/{file}", "oom_kill") if top >= 0 else 0

    def refused(self, name: str) -> int:
        """How many processes of a sandbox were not made, because there were enough."""
        top = self._tops.get(_UNIFIED if self._unified else "pids", -1)
        return _field(top, f"{name}/pids.events", "max") if top >= 0 else 0

    def gather(self, name: str, pid: int) -> None:
        """Move a process into the group that is frozen; it and its children stay there."""
        self._ensure(self._freezer, name)
        try:
            _put(self._freezer, f"{name}/cgroup.procs", str(pid))
        except ProcessLookupError:
            pass  # it has ended meanwhile

    def freeze(self, name: str, *, frozen: bool) -> None:
        """Stop, or let go on, every process of the group."""
        _put(self._freezer, f"{name}/cgroup.freeze", "1" if frozen else "0")

    def is_frozen(self, name: str) -> bool:
        """Whether every process of the group has come to its stop."""
        return _field(self._freezer, f"{name}/cgroup.events", "frozen") == 1

    def remove(self, name: str) -> None:
        """Remove a sandbox's groups; while they have processes, `retry` has to be called again."""
        if not self._removed(name):
            self._stale.add(name)

    def retry(self) -> None:
        """Remove the groups that still had processes when they should have gone."""
        if self._stale:
            self._stale = {name for name in self._stale if not self._removed(name)}

    def remove_empty(self) -> None:
        """Remove the groups that clients which were killed have left."""
        for top in self._all():
            with os.scandir(top) as listing:
                names = [entry.name for entry in listing if entry.is_dir(follow_symlinks=False)]
            for name in names:
                lock = _lock(top, name, fcntl.LOCK_EX)
                if lock is not None:
                    _rmdir(top, name)
                    os.close(lock)

    def _ensure(self, top: int, name: str) -> None:
        """Make a group, and hold it: one that is still empty is not removed by `remove_empty` of another
        client, which would leave a sandbox without its limits."""
        while (top, name) not in self._locks:
            try:
                os.mkdir(name, dir_fd=top)
            except FileExistsError:
                pass
            lock = _lock(top, name, fcntl.LOCK_SH)
            if lock is not None:
                self._locks[top, name] = lock

    def _removed(self, name: str) -> bool:
        gone = True
        for top in self._all():
            lock = self._locks.pop((top, name), None)
            if lock is not None:
                os.close(lock)
            # Each of them, also when one is refused.
            gone = _rmdir(top, name) and gone
        return gone

    def _all(self) -> list[int]:
        return [*self._tops.values(), *([self._freezer] if self._freezer >= 0 else [])]

    def _write(self, hierarchy: str, name: str, file: str, value: str, *, optional: bool = False) -> None:
        top = self._tops[hierarchy]
        self._ensure(top, name)
        try:
            _put(top, f"{name}/{file}", value)
        except FileNotFoundError:
            if not optional:
                raise


def _put(top: int, path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=top)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _field(top: int, path: str, name: str) -> int:
    """A number of a file of `name number` lines; 0 when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=top)
    except OSError:
        return 0
    with open(descriptor) as text:
        for line in text:
            words = line.split()
            if len(words) == 2 and words[0] == name:
                return int(words[1])
    return 0


def _lock(top: int, name: str, kind: int) -> int | None:
    """Lock a group that is there; None when it is not, or somebody else's."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        # It may have been removed before it was locked.
        if os.stat(name, dir_fd=top).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _rmdir(top: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _open_top(place: str, *, enable: bool) -> int:
    top = f"{place}/{_TOP}"
    os.makedirs(top, exist_ok=True)
    if enable:
        for each in (place, top):
            missing = [name for name in CONTROLLERS if name not in _words(f"{each}/cgroup.subtree_control")]
            if missing:
                with open(f"{each}/cgroup.subtree_control", "w") as file:
                    file.write(" ".join(f"+{name}" for name in missing))
    if not os.access(top, os.W_OK):
        raise PermissionError(errno.EACCES, "not ours to write", top)
    return os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
