"""Stopping every process of a sandbox for the time of a copy, in the helper.

By a control group where there is one (see `cgroups.freezer`); else by SIGSTOP to each process, again until no
new one appears. Processes that the guest had stopped itself stay stopped.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from sandboxfile.engines.linux.cgroups import Cgroups

_DEADLINE = 2.0
_STOPPED = (b"T", b"t")
_ENDED = (b"Z", b"X")


class Freezer:
    """Freezes and thaws sandboxes by name."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._stopped: dict[str, set[int]] = {}

    def freeze(self, name: str, init: int) -> int:
        """Stop the processes of the pid namespace of `init`; how many. OSError when one does not stop."""
        try:
            return self._freeze(name, init)
        except BaseException:
            self.thaw(name)
            raise

    def _freeze(self, name: str, init: int) -> int:
        deadline = time.monotonic() + _DEADLINE
        namespace = os.stat(f"/proc/{init}/ns/pid").st_ino
        if self._cgroups.can_freeze:
            try:
                return self._freeze_group(name, namespace, deadline)
            except PermissionError:
                pass  # it was started in a group that we may not take processes from
        return self._stop(name, namespace, deadline)

    def _freeze_group(self, name: str, namespace: int, deadline: float) -> int:
        gathered: set[int] = set()
        while new := {pid for pid, _ in members(namespace)} - gathered:
            for pid in new:
                self._cgroups.gather(name, pid)
            gathered |= new
            _check(deadline)
        self._stopped[name] = set()
        self._cgroups.freeze(name, frozen=True)
        while not self._cgroups.is_frozen(name):
            _check(deadline)
            time.sleep(0.0002)
        return len(gathered)

    def _stop(self, name: str, namespace: int, deadline: float) -> int:
        stopped = self._stopped[name] = set()
        while True:
            running = [
                pid
                for pid, state in members(namespace)
                if pid in stopped or state not in (*_STOPPED, *_ENDED)
            ]
            new = [pid for pid in running if pid not in stopped]
            for pid in new:
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    continue
                stopped.add(pid)
            if not new and all(_state(pid) in (*_STOPPED, *_ENDED, b"") for pid in stopped):
                return len(stopped)
            _check(deadline)
            time.sleep(0.0002)

    def thaw(self, name: str) -> None:
        """Let them go on. Nothing happens when they are not frozen."""
        stopped = self._stopped.pop(name, None)
        if stopped is None:
            return
        if self._cgroups.can_freeze:
            try:
                self._cgroups.freeze(name, frozen=False)
            except FileNotFoundError:
                pass  # the sandbox was ended meanwhile
        for pid in stopped:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass


def members(namespace: int) -> list[tuple[int, bytes]]:
    """The processes of a pid namespace (by its inode) and their states."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                inode = os.stat(f"/proc/{entry}/ns/pid").st_ino
            except OSError:
                continue  # it has ended, or it is not a sandbox's
            if inode == namespace:
                found.append((int(entry), _state(int(entry))))
    return found


def memory_of(init: int) -> int:
    """Bytes that the processes of the pid namespace of `init` take, what they share counted in parts."""
    total = 0
    for pid, _ in members(os.stat(f"/proc/{init}/ns/pid").st_ino):
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                sizes = [line.split()[1] for line in file if line.startswith(b"Pss:")]
        except OSError:
            continue  # it has ended
        total += sum(int(size) * 1024 for size in sizes)
    return total


def _state(pid: int) -> bytes:
    """The state letter of a process, empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return b""


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise OSError(errno.ETIMEDOUT, "a process of the sandbox did not stop")
