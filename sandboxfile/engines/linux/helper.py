"""The helper: a small process of ours that owns every mount, sandbox and worker of one client.

It is process 1 of its own pid namespace and the owner of its own mount namespace, so that its death, by
whatever cause, ends every process and mount it made; it ends when its client does. One thread, one poll
loop: requests come in over a socket, each a list of operations (see `operations`) that are done in order.
It imports little, because it has to start in milliseconds.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from sandboxfile.engines.linux import mounts
from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.cgroups import Cgroups
from sandboxfile.engines.linux.helper_files import Files
from sandboxfile.engines.linux.helper_jobs import Jobs
from sandboxfile.engines.linux.namespaces import IdMaps, NamespacePool
from sandboxfile.engines.linux.wire import receive, send

Operation = dict[str, Any]
_OF_JOBS = {
    *("signal", "watch", "deadline", "freeze", "thaw"),
    *("limit", "unlimit", "limit_events", "look_for_groups", "usage", "count"),
}


class Helper:
    """Process 1: the poll loop and the dispatch of operations."""

    def __init__(
        self, channel: socket.socket, client: int, settings: dict[str, Any], cgroups: Cgroups
    ) -> None:
        self.channel = channel
        self.client = client
        self.base: str = settings["base"]
        maps = IdMaps(settings)
        self.jobs = Jobs(settings, self._report, cgroups, maps)
        self.files = Files(settings)
        self._wakeup, writer = socket.socketpair()
        self._wakeup.setblocking(False)
        writer.setblocking(False)
        self._writer = writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self.namespaces = NamespacePool(maps, self._poll)
        self._listeners: dict[int, tuple[socket.socket, int]] = {}

    def run(self) -> None:
        """Serve until the client is gone."""
        for descriptor in (self.channel.fileno(), self._wakeup.fileno(), self.client):
            self._poll.register(descriptor, select.POLLIN)
        self._report({"event": "ready", "features": self.files.features()})
        while True:
            short = self.namespaces.short
            ready = {descriptor for descriptor, _ in self._poll.poll(0 if short else self.jobs.patience())}
            if short and not ready:
                self.namespaces.refill()
            if self.client in ready:
                return
            if self._wakeup.fileno() in ready:
                self._wakeup.recv(4096)
            self.jobs.reap()
            for descriptor in ready:
                if descriptor in self._listeners:
                    self._accept(descriptor)
                else:
                    self.namespaces.advance(descriptor)
            if self.channel.fileno() in ready:
                message, descriptors = receive(self.channel)
                if message is None:
                    return
                self._serve(message, descriptors)

    def _serve(self, message: dict[str, Any], descriptors: list[int]) -> None:
        results: list[Any] = []
        outgoing: list[int] = []
        reply: dict[str, Any] = {"id": message["id"]}
        try:
            for operation in message["ops"]:
                result = self._do(operation, descriptors, outgoing)
                results.append(result)
            reply["results"] = results
        except OSError as error:
            reply["error"] = {
                "index": len(results),
                "errno": error.errno or errno.EIO,
                "reason": error.strerror or str(error),
                "file": os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "",
            }
        except Exception as error:
            # Nothing a request says may end the helper, and all sandboxes with it.
            reason = f"{type(error).__name__}: {error}"
            reply["error"] = {"index": len(results), "errno": errno.EINVAL, "reason": reason, "file": ""}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._report(reply, outgoing)
        for descriptor in outgoing:
            os.close(descriptor)

    def _do(self, operation: Operation, given: list[int], outgoing: list[int]) -> Any:
        kind = operation["op"]
        if kind in ("spawn", "worker"):
            return getattr(self.jobs, kind)(operation, given)
        if kind == "namespaces":
            return self.namespaces.give(operation)
        if kind in _OF_JOBS:
            return getattr(self.jobs, kind)(operation)
        if kind == "socket":
            outgoing.append(self.jobs.connected_namespace_socket(operation))
            return None
        if kind == "listen":
            return self._listen(operation)
        return getattr(self.files, kind)(operation)

    def _listen(self, operation: Operation) -> None:
        """A socket a runtime sends a terminal to; the terminal is passed on to the client."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(operation["path"])
        listener.listen(1)
        self._listeners[listener.fileno()] = (listener, operation["job"])
        self._poll.register(listener.fileno(), select.POLLIN)

    def _accept(self, descriptor: int) -> None:
        listener, job = self._listeners.pop(descriptor)
        self._poll.unregister(descriptor)
        connection, _ = listener.accept()
        listener.close()
        with connection:
            connection.settimeout(2)
            _, terminals, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        self._report({"event": "console", "job": job}, terminals)
        for terminal in terminals:
            os.close(terminal)

    def _report(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        try:
            send(self.channel, message, descriptors or [])
        except OSError:
            # The client is gone, and with it everybody who could be interested.
            os._exit(0)


def main() -> None:
    """Entry of the helper: settings in argv[1], the channel's descriptor among them."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    client = os.pidfd_open(os.getppid())
    channel = socket.socket(fileno=settings["channel"])
    channel.set_inheritable(False)
    os.umask(0o022)
    try:
        if settings["mode"] == "user":
            sys_.unshare(sys_.CLONE_NEWUSER)
            send(channel, {"event": "map"}, [])
            receive(channel)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        sys_.unshare(sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWIPC)
        if settings["cover_cgroups"]:
            # Only to be allowed that mount. A cgroup namespace is a wall where the tree is mounted with
            # `nsdelegate`, as systemd does: nothing could be moved to a group that is not below our own.
            sys_.unshare(sys_.CLONE_NEWCGROUP)
    except OSError as error:
        send(
            channel, {"event": "failed", "errno": error.errno, "reason": f"namespaces: {error.strerror}"}, []
        )
        return
    child = os.fork()
    if child:
        # This process only waits, so that the client can: when it ends, everything below is gone.
        channel.close()
        os.close(client)
        os.waitpid(child, 0)
        os._exit(0)
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    sys_.prctl(sys_.PR_SET_NAME, b"sandboxfile")
    _leave_keyring()
    try:
        cgroups = Cgroups()
        mounts.private_view(settings["base"], cover_cgroups=settings["cover_cgroups"])
        settings["limits"] = cgroups.usable
        settings["user_xattrs"] = _user_xattrs(settings["base"])
        helper = Helper(channel, client, settings, cgroups)
    except OSError as error:
        reason = f"mounts: {error.strerror} ({error.filename})"
        send(channel, {"event": "failed", "errno": error.errno, "reason": reason}, [])
        os._exit(1)
    try:
        helper.run()
    finally:
        os._exit(0)


def _leave_keyring() -> None:
    """Give everything below the helper an empty session keyring in place of the user's."""
    try:
        sys_.join_session_keyring()
    except OSError:
        # A kernel without keys, or a container that hides them: then there is nothing to hide either.
        return


def _user_xattrs(base: str) -> bool:
    path = f"{base}/xattr"
    os.mkdir(path)
    try:
        os.setxattr(path, "user.sandboxfile", b"1")
    except OSError:
        return False
    else:
        return True
    finally:
        os.rmdir(path)
