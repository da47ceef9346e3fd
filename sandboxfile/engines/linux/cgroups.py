"""Limits of memory, processors and processes by control groups, where the host gives them to us.

Used by the helper, which opens the hierarchies before it covers them (see `mounts.private_view`). A sandbox's
group is `sandboxfile/<id>` below the root of each hierarchy. Ordinary users have none.
"""

from __future__ import annotations

import errno
import os

_TOP = "sandboxfile"
_PERIOD = 100_000
_V1_CONTROLLERS = ("memory", "cpu", "pids")


class Cgroups:
    """The host's hierarchies: one (v2), or one for each controller (v1); none when we may not write."""

    def __init__(self) -> None:
        self._unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        self._tops: dict[str, int] = {}
        places = {"unified": ""} if self._unified else {name: f"/{name}" for name in _V1_CONTROLLERS}
        for name, place in places.items():
            try:
                self._tops[name] = _open_top(f"/sys/fs/cgroup{place}", enable=self._unified)
            except OSError:
                # Not mounted, or not ours to write: then there are no limits at all.
                self._tops.clear()
                return

    @property
    def usable(self) -> bool:
        """Whether limits can be kept."""
        return bool(self._tops)

    def make(self, name: str, memory: int | None, cpus: float | None, pids: int | None) -> None:
        """Make the groups of a sandbox. Bytes, cores, processes; None is no limit."""
        if not self._tops:
            raise OSError(errno.EOPNOTSUPP, "control groups cannot be used here")
        for top in self._tops.values():
            try:
                os.mkdir(name, dir_fd=top)
            except FileExistsError:
                pass
        if memory is not None:
            if self._unified:
                self._write("unified", name, "memory.max", str(memory))
                self._write("unified", name, "memory.swap.max", "0", optional=True)
            else:
                self._write("memory", name, "memory.limit_in_bytes", str(memory))
                self._write("memory", name, "memory.memsw.limit_in_bytes", str(memory), optional=True)
        if cpus is not None:
            quota = max(1000, int(cpus * _PERIOD))
            if self._unified:
                self._write("unified", name, "cpu.max", f"{quota} {_PERIOD}")
            else:
                self._write("cpu", name, "cpu.cfs_period_us", str(_PERIOD))
                self._write("cpu", name, "cpu.cfs_quota_us", str(quota))
        if pids is not None:
            self._write("unified" if self._unified else "pids", name, "pids.max", str(pids))

    def join(self, name: str) -> None:
        """Move the calling process into a sandbox's groups."""
        for hierarchy in self._tops:
            self._write(hierarchy, name, "cgroup.procs", "0")

    def killed(self, name: str) -> int:
        """How many processes of a sandbox were ended for want of memory."""
        file = "memory.events" if self._unified else "memory.oom_control"
        top = self._tops["unified" if self._unified else "memory"]
        try:
            descriptor = os.open(f"{name}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=top)
        except OSError:
            return 0
        with open(descriptor) as text:
            for line in text:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def remove(self, name: str) -> None:
        """Remove a sandbox's groups; nothing happens while they have processes."""
        for top in self._tops.values():
            try:
                os.rmdir(name, dir_fd=top)
            except OSError:
                pass

    def remove_empty(self) -> None:
        """Remove the groups that clients which were killed have left."""
        for top in self._tops.values():
            with os.scandir(top) as listing:
                names = [entry.name for entry in listing if entry.is_dir(follow_symlinks=False)]
            for name in names:
                try:
                    os.rmdir(name, dir_fd=top)
                except OSError:
                    pass

    def _write(self, hierarchy: str, name: str, file: str, value: str, *, optional: bool = False) -> None:
        try:
            flags = os.O_WRONLY | os.O_CLOEXEC
            descriptor = os.open(f"{name}/{file}", flags, dir_fd=self._tops[hierarchy])
        except FileNotFoundError:
            if optional:
                return
            raise
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


def _open_top(hierarchy: str, *, enable: bool) -> int:
    if enable:
        for place in (hierarchy, f"{hierarchy}/{_TOP}"):
            os.makedirs(place, exist_ok=True)
            with open(f"{place}/cgroup.subtree_control", "w") as file:
                file.write("+memory +cpu +pids")
    elif not os.path.exists(f"{hierarchy}/cgroup.procs"):
        raise FileNotFoundError(errno.ENOENT, "no such hierarchy", hierarchy)
    os.makedirs(f"{hierarchy}/{_TOP}", exist_ok=True)
    if not os.access(f"{hierarchy}/{_TOP}", os.W_OK):
        raise PermissionError(errno.EACCES, "not ours to write", hierarchy)
    return os.open(f"{hierarchy}/{_TOP}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
