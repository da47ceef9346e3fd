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
from sandboxfile.engines.linux.freeze import Freezer, members, memory_of
from sandboxfile.engines.linux.namespaces import IdMaps, enter_user_namespace, fork
from sandboxfile.engines.linux.sealed import SealedPrograms

Operation = dict[str, Any]
_RETRY = 0.01
_GIVE_UP = 2.0
_REMEMBERED = 1000


class _Job:
    """A process that somebody waits for. `pid_file` names the process in the sandbox it stands for."""

    def __init__(self, number: int, pid: int, pid_file: str, adopt: int = 0) -> None:
        self.number = number
        self.adopt = adopt
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
        self,
        settings: dict[str, Any],
        report: Callable[[dict[str, Any]], None],
        cgroups: Cgroups,
        maps: IdMaps,
    ) -> None:
        self._report = report
        self._cgroups = cgroups
        self._maps = maps
        self._guest: tuple[int, int] = (settings["guest_uid"], settings["guest_gid"])
        self._jobs: dict[int, _Job] = {}
        self._ended: dict[int, int] = {}
        self._pending: list[tuple[_Job, int, bool, float]] = []
        self._sealed = SealedPrograms()
        self._freezer = Freezer(cgroups)
        self._deadlines: dict[int, float] = {}

    def patience(self) -> int | None:
        """How long the poll loop may sleep, in milliseconds."""
        if self._pending:
            return int(_RETRY * 1000)
        if not self._deadlines:
            return None
        # Rounded up, so that the deadline is over when the loop wakes.
        return max(0, int((min(self._deadlines.values()) - time.monotonic()) * 1000) + 1)

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
                self._report({"event": "exit", "job": job.number, "code": code, **self._adopt(job, code)})
            self._deadlines.pop(pid, None)
            self._cgroups.retry()
        self._expire()
        again, self._pending = self._pending, []
        for job, number, tree, since in again:
            if job.pid in self._jobs:
                self._deliver(job, number, tree, since)

    def _adopt(self, job: _Job, code: int) -> dict[str, int]:
        """Watch what a runtime that ended well has left behind, when it was started for that."""
        if not job.adopt or code:
            return {}
        try:
            return {"left": self.watch({"job": job.adopt, "pid_file": job.pid_file})}
        except OSError:
            return {}

    def _expire(self) -> None:
        """Kill the jobs whose time is over."""
        if not self._deadlines:
            return
        now = time.monotonic()
        for pid in [pid for pid, when in self._deadlines.items() if when <= now]:
            del self._deadlines[pid]
            _kill(pid, signal.SIGKILL)

    def deadline(self, operation: Operation) -> None:
        """Set, move or take back the moment at which a job is killed."""
        for pid, job in self._jobs.items():
            if job.number == operation["job"]:
                self._deadlines.pop(pid, None)
                if operation["seconds"] is not None:
                    self._deadlines[pid] = time.monotonic() + operation["seconds"]
                return

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
        program = self._sealed.path(argv[0]) if operation["sealed"] else argv[0]
        if operation["cgroup"]:
            pid = self._spawn_limited(operation, program, actions)
        else:
            defaults = [signal.SIGPIPE]
            pid = os.posix_spawn(program, argv, operation["env"], file_actions=actions, setsigdef=defaults)
        self._jobs[pid] = _Job(operation["job"], pid, operation["pid_file"], operation["adopt"])
        return pid

    def _spawn_limited(self, operation: Operation, program: str, actions: list[tuple[Any, ...]]) -> int:
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
            os.execve(program, operation["argv"], operation["env"])
        finally:
            os._exit(125)

    def look_for_groups(self, operation: Operation) -> bool:  # noqa: ARG002
        """Use the control groups that there are now; whether limits can be kept."""
        self._cgroups.look()
        return self._cgroups.usable

    def limit(self, operation: Operation) -> None:
        """Make a sandbox's control groups."""
        self._cgroups.make(operation["name"], operation["memory"], operation["cpus"], operation["pids"])

    def limit_events(self, operation: Operation) -> tuple[int, int]:
        """How often control groups acted on a sandbox: for memory, and for the number of processes."""
        return self._cgroups.killed(operation["name"]), self._cgroups.refused(operation["name"])

    def freeze(self, operation: Operation) -> int:
        """Stop every process of a sandbox."""
        return self._freezer.freeze(operation["name"], operation["pid"])

    def thaw(self, operation: Operation) -> None:
        """Let a sandbox's processes go on."""
        self._freezer.thaw(operation["name"])

    def count(self, operation: Operation) -> int:
        """How many processes a sandbox has."""
        return len(members(os.stat(f"/proc/{operation['pid']}/ns/pid").st_ino))

    def usage(self, operation: Operation) -> int:
        """Bytes of memory that the processes of a sandbox take."""
        return memory_of(operation["pid"])

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
        pid, ready, go = fork(lambda ready, go: _work(operation, given, mapped, ready, go))
        self._jobs[pid] = _Job(operation["job"], pid, "")
        try:
            if mapped and os.read(ready, 1):
                self._maps.write(pid)
                os.write(go, b"g")
        finally:
            os.close(ready)
            os.close(go)
        return pid

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


def _work(operation: Operation, given: list[int], mapped: bool, ready: int, go: int) -> None:
    from sandboxfile.engines.linux.worker.tasks import run_task

    run_task(
        operation["task"],
        operation["args"],
        operation["dirs"],
        given,
        (lambda: enter_user_namespace(ready, go)) if mapped else None,
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
