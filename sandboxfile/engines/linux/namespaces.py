"""The user and network namespaces of sandboxes: made by children of the helper, some of them ahead of time.

Making a pair takes about 3 ms of forking and waiting, more than a third of what starting a sandbox takes
otherwise. So the helper keeps a few children that hold pairs which nobody uses yet, and makes the next one
while a runtime that was just started is at work.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.nested import LimitedHolder
from sandboxfile.engines.linux.netlink import bring_up

Operation = dict[str, Any]
_KEPT = 2
"""How many pairs are made ahead: one for the next boot, one for the boot at the same moment."""


class IdMaps:
    """The mapping of every user namespace of this helper's sandboxes: 0 to 65535 onto the store's range."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._uid = f"0 {settings['guest_uid']} 65536\n"
        self._gid = f"0 {settings['guest_gid']} 65536\n"
        self.first: tuple[int, int] = (settings["guest_uid"], settings["guest_gid"])
        self._same_uid = f"{settings['guest_uid']} {settings['guest_uid']} 65536\n"
        self._same_gid = f"{settings['guest_gid']} {settings['guest_gid']} 65536\n"

    def write(self, pid: int) -> None:
        """Give the user namespace a process has entered its ids."""
        self._write(pid, self._uid, self._gid)

    def become_first(self) -> None:
        """Take the first ids of the range, in a user namespace that has them as they are."""
        os.setresgid(*[self.first[1]] * 3)
        os.setresuid(*[self.first[0]] * 3)
        # A change of ids makes a process opaque to others.
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)

    def write_same(self, pid: int) -> None:
        """Give a user namespace the ids of the store's range as they are."""
        self._write(pid, self._same_uid, self._same_gid)

    @staticmethod
    def _write(pid: int, uid: str, gid: str) -> None:
        for name, text in (("uid_map", uid), ("gid_map", gid)):
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)


def fork(body: Callable[[int, int], None]) -> tuple[int, int, int]:
    """Fork; the child runs `body(ready, go)`, the parent gets the pid and its ends of both pipes."""
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(ready_read)
            os.close(go_write)
            body(ready_write, go_read)
            os._exit(0)
        except BaseException:
            os._exit(125)
    os.close(ready_write)
    os.close(go_read)
    return pid, ready_read, go_write


def enter_user_namespace(ready: int, go: int) -> None:
    """Enter a new user namespace and wait until the helper has given it its ids."""
    sys_.unshare(sys_.CLONE_NEWUSER)
    os.write(ready, b"u")
    if not os.read(go, 1):
        os._exit(125)


class NamespacePool:
    """Gives sandboxes their namespaces. poll: told which descriptors `advance` wants to hear of."""

    def __init__(self, maps: IdMaps, poll: select.poll) -> None:
        self._maps = maps
        self._poll = poll
        self._kept: list[_Holder] = []
        self.eager = True

    @property
    def short(self) -> bool:
        """Whether now is a moment to make a pair ahead."""
        return self.eager and len(self._kept) < _KEPT

    def refill(self) -> None:
        """Begin to make one pair ahead."""
        try:
            holder = _Holder(self._maps)
        except OSError:
            # Out of processes: whoever wants a pair will be told so.
            self.eager = False
            return
        self._kept.append(holder)
        self._poll.register(holder.ready, select.POLLIN)

    def advance(self, descriptor: int) -> bool:
        """Go on with a pair after its child was heard; whether the descriptor is one of ours."""
        for holder in self._kept:
            if holder.ready == descriptor:
                if not holder.done:
                    try:
                        holder.step()
                    except OSError:
                        self._drop(holder)
                        self.eager = False  # the host may have run out of namespaces
                        return True
                if holder.done:
                    self._poll.unregister(descriptor)
                return True
        return False

    def give(self, operation: Operation) -> None:
        """Put files `user` and `net`, which hold a pair, into a new directory."""
        directory, processes = operation["path"], operation["processes"]
        os.makedirs(directory)
        holder = self._take() if processes is None else LimitedHolder(self._maps, processes)
        try:
            for name in ("user", "net"):
                target = f"{directory}/{name}"
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
                sys_.mount(f"/proc/{holder.pid}/ns/{name}", target, None, sys_.MS_BIND)
        finally:
            holder.close()

    def _take(self) -> _Holder:
        while self._kept:
            holder = self._kept[0]
            self._kept.remove(holder)
            if not holder.done:
                self._poll.unregister(holder.ready)
            try:
                holder.finish()
            except OSError:
                holder.close()
                continue
            if holder.alive:
                return holder
            holder.close()
        holder = _Holder(self._maps)
        try:
            holder.finish()
        except BaseException:
            holder.close()
            raise
        return holder

    def _drop(self, holder: _Holder) -> None:
        self._kept.remove(holder)
        self._poll.unregister(holder.ready)
        holder.close()


class _Holder:
    """A child that makes a pair of namespaces and keeps it until its descriptors are closed."""

    def __init__(self, maps: IdMaps) -> None:
        self._maps = maps
        self._mapped = False
        self.done = False
        self.pid, self.ready, self._go = fork(_hold)

    def step(self) -> None:
        """Wait for what the child says next. Raises PermissionError when it has failed."""
        if not os.read(self.ready, 1):
            wanted = "network" if self._mapped else "user"
            raise PermissionError(1, f"a {wanted} namespace cannot be made")
        if self._mapped:
            self.done = True
        else:
            self._maps.write(self.pid)
            os.write(self._go, b"g")
            self._mapped = True

    def finish(self) -> None:
        """Wait until the pair is there."""
        while not self.done:
            self.step()

    @property
    def alive(self) -> bool:
        """Whether the child still holds the pair: it has said everything, so all that can come is its end."""
        return not select.select([self.ready], [], [], 0)[0]

    def close(self) -> None:
        """Let the child go."""
        os.close(self._go)
        os.close(self.ready)


def _hold(ready: int, go: int) -> None:
    # It may live long: nothing else of the helper's stays open here.
    low, high = sorted((ready, go))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
    enter_user_namespace(ready, go)
    furnish()
    os.write(ready, b"n")
    # Until the helper holds the namespaces and closes its end.
    os.read(go, 1)


def furnish() -> None:
    """Add a network namespace with `lo` to the user namespace this process has entered."""
    sys_.unshare(sys_.CLONE_NEWNET)
    bring_up("lo")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # A change of ids makes a process opaque to others; the helper has to look at its namespaces.
    sys_.prctl(sys_.PR_SET_DUMPABLE, 1)
    # Lets every user of the sandbox send pings without a capability.
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 65534")
