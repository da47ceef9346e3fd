"""Processes of the helper: programs it starts, workers it forks, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.cgroups import Cgroups

Operation = dict[str, Any]
_RETRY = 0.01
_GIVE_UP = 2.0
_REMEMBERED = 1000


class _Job:
    """A process that somebody waits for. `pid_file` names the process in the sandbox it stands for."""

    def __init__(self, number: int, pid: int, pid_file: str) -> None:
        self.number = number
        self.pid = pid
        self.pid_file = pid_file

    def inside(self) -> int | None:
        """The process in the sandbox, None while there is none."""
        try:
            with open(self.pid_file) as file:
                return int(file.read())
        except (OSError, ValueError):
            return None


class Jobs:
    """Every child of the helper; as process 1 it inherits the orphans of the others too."""

    def __init__(
        self, settings: dict[str, Any], report: Callable[[dict[str, Any]], None], cgroups: Cgroups
    ) -> None:
        self._report = report
        self._cgroups = cgroups
        self._map_uid = f"0 {settings['guest_uid']} 65536\n"
        self._map_gid = f"0 {settings['guest_gid']} 65536\n"
        self._guest: tuple[int, int] = (settings["guest_uid"], settings["guest_gid"])
        self._jobs: dict[int, _Job] = {}
        self._ended: dict[int, int] = {}
        self._pending: list[tuple[_Job, int, bool, float]] = []

    def patience(self) -> int | None:
        """How long the poll loop may sleep, in milliseconds."""
        return int(_RETRY * 1000) if self._pending else None

    def reap(self) -> None:
        """Collect the children that ended, report those that somebody waits for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            job = self._jobs.pop(pid, None)
            if job is None:
                self._ended[pid] = code
                while len(self._ended) > _REMEMBERED:
                    del self._ended[next(iter(self._ended))]
            else:
                self._report({"event": "exit", "job": job.number, "code": code})
        again, self._pending = self._pending, []
        for job, number, tree, since in again:
            if job.pid in self._jobs:
                self._deliver(job, number, tree, since)

    def spawn(self, operation: Operation, given: list[int]) -> int:
        """Start a program. Its three descriptors are indexes into the given ones, -1 is /dev/null."""
        actions: list[tuple[Any, ...]] = []
        for target, index in enumerate(operation["stdio"]):
            if index < 0:
                actions.append((os.POSIX_SPAWN_OPEN, target, "/dev/null", os.O_RDWR, 0))
            else:
                if operation["own_stdio"]:
                    os.fchown(given[index], *operation["own_stdio"])
                actions.append((os.POSIX_SPAWN_DUP2, given[index], target))
        argv = operation["argv"]
        if operation["cgroup"]:
            pid = self._spawn_limited(operation, actions)
        else:
            defaults = [signal.SIGPIPE]
            pid = os.posix_spawn(argv[0], argv, operation["env"], file_actions=actions, setsigdef=defaults)
        self._jobs[pid] = _Job(operation["job"], pid, operation["pid_file"])
        return pid

    def _spawn_limited(self, operation: Operation, actions: list[tuple[Any, ...]]) -> int:
        """Start a program that is inside of its control groups before it does anything."""
        pid = os.fork()
        if pid:
            return pid
        try:
            self._cgroups.join(operation["cgroup"])
            # The given descriptors are above the three that are replaced here.
            for action in actions:
                if action[0] == os.POSIX_SPAWN_DUP2:
                    os.dup2(action[1], action[2])
                else:
                    os.dup2(os.open("/dev/null", os.O_RDWR), action[1])
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execve(operation["argv"][0], operation["argv"], operation["env"])
        finally:
            os._exit(125)

    def limit(self, operation: Operation) -> None:
        """Make a sandbox's control groups."""
        self._cgroups.make(operation["name"], operation["memory"], operation["cpus"], operation["pids"])

    def killed_for_memory(self, operation: Operation) -> int:
        """How many processes of a sandbox were ended for want of memory."""
        return self._cgroups.killed(operation["name"])

    def unlimit(self, operation: Operation) -> None:
        """Remove a sandbox's control groups, or with no name all that nobody uses."""
        if operation["name"]:
            self._cgroups.remove(operation["name"])
        else:
            self._cgroups.remove_empty()

    def watch(self, operation: Operation) -> int:
        """Wait for a process that a runtime left behind for us (process 1 inherits it)."""
        job = _Job(operation["job"], 0, operation["pid_file"])
        pid = job.inside()
        if pid is None:
            raise ProcessLookupError(3, "the runtime left no process", operation["pid_file"])
        job.pid = pid
        if pid in self._ended:
            self._report({"event": "exit", "job": job.number, "code": self._ended.pop(pid)})
        else:
            self._jobs[pid] = job
        return pid

    def signal(self, operation: Operation) -> None:
        """Send a signal to a job's process in the sandbox, or end its whole tree."""
        for job in self._jobs.values():
            if job.number == operation["job"]:
                self._deliver(job, operation["signal"], operation["tree"], time.monotonic())
                return

    def _deliver(self, job: _Job, number: int, tree: bool, since: float) -> None:
        if tree:
            victims = _tree(job.pid, job.inside())
            for victim in victims:
                _kill(victim, signal.SIGKILL)
            if time.monotonic() - since > _GIVE_UP:
                _kill(job.pid, signal.SIGKILL)
            # The tree may grow while it is being ended: look again until the job itself is gone.
            self._pending.append((job, number, True, since))
        elif not job.pid_file:
            _kill(job.pid, number)
        elif (inside := job.inside()) is not None:
            _kill(inside, number)
        elif time.monotonic() - since < _GIVE_UP:
            self._pending.append((job, number, False, since))

    def worker(self, operation: Operation, given: list[int]) -> int:
        """Fork a worker; with `mapped`, into a user namespace with the ids of the sandboxes."""
        mapped = operation["mapped"]
        pid, ready, go = _fork(lambda ready, go: _work(operation, given, mapped, ready, go))
        self._jobs[pid] = _Job(operation["job"], pid, "")
        try:
            if mapped and os.read(ready, 1):
                self._write_maps(pid)
                os.write(go, b"g")
        finally:
            os.close(ready)
            os.close(go)
        return pid

    def namespaces(self, operation: Operation) -> None:
        """A user namespace and a network namespace in it with only `lo`, kept by mounts in a directory."""
        directory = operation["path"]
        os.makedirs(directory)
        pid, ready, go = _fork(_hold_namespaces)
        try:
            if not os.read(ready, 1):
                raise PermissionError(1, "a user namespace cannot be made")
            self._write_maps(pid)
            os.write(go, b"g")
            if not os.read(ready, 1):
                raise PermissionError(1, "a network namespace cannot be made")
            for name in ("user", "net"):
                target = f"{directory}/{name}"
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
                sys_.mount(f"/proc/{pid}/ns/{name}", target, None, sys_.MS_BIND)
        finally:
            os.close(go)
            os.close(ready)

    def connected_namespace_socket(self, operation: Operation) -> int:
        """A TCP socket that belongs to a network namespace; the caller connects it."""
        ours, theirs = socket.socketpair()
        family = socket.AF_INET6 if operation["v6"] else socket.AF_INET
        pid = os.fork()
        if pid == 0:
            try:
                descriptor = os.open(operation["net"], os.O_RDONLY)
                sys_.setns(descriptor, sys_.CLONE_NEWNET)
                made = socket.socket(family, socket.SOCK_STREAM)
                socket.send_fds(theirs, [b"s"], [made.fileno()])
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            raise PermissionError(1, "the sandbox's network cannot be entered")
        return descriptors[0]

    def _write_maps(self, pid: int) -> None:
        for name, text in (("uid_map", self._map_uid), ("gid_map", self._map_gid)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)


def _fork(body: Callable[[int, int], None]) -> tuple[int, int, int]:
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


def _enter_user_namespace(ready: int, go: int) -> None:
    sys_.unshare(sys_.CLONE_NEWUSER)
    os.write(ready, b"u")
    if not os.read(go, 1):
        os._exit(125)


def _hold_namespaces(ready: int, go: int) -> None:
    _enter_user_namespace(ready, go)
    sys_.unshare(sys_.CLONE_NEWNET)
    from sandboxfile.engines.linux.netlink import bring_up

    bring_up("lo")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # A change of ids makes a process opaque to others; the helper has to look at its namespaces.
    sys_.prctl(sys_.PR_SET_DUMPABLE, 1)
    # Lets every user of the sandbox send pings without a capability.
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 65534")
    os.write(ready, b"n")
    # Until the helper holds the namespaces and closes its end.
    os.read(go, 1)


def _work(operation: Operation, given: list[int], mapped: bool, ready: int, go: int) -> None:
    from sandboxfile.engines.linux.worker.tasks import run_task

    run_task(
        operation["task"],
        operation["args"],
        operation["dirs"],
        given,
        (lambda: _enter_user_namespace(ready, go)) if mapped else None,
    )


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _tree(pid: int, inside: int | None) -> list[int]:
    """All descendants of a process, and everything in the session of the process in the sandbox."""
    parents: dict[int, list[int]] = {}
    sessions: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(name))
        sessions.setdefault(int(fields[3]), []).append(int(name))
    found: list[int] = list(sessions.get(inside, [])) if inside else []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
