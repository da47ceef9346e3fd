"""Starting the helper process. Imports little and nothing of asyncio, so that a program which knows early
that it will want a helper can have it start while it imports the rest."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

from sandboxfile.errors import HostError

# The package itself is not imported: its front door would load far more than the helper needs.
_BOOTSTRAP = """
import sys
package = type(sys)("sandboxfile")
package.__path__ = [{package!r}]
sys.modules["sandboxfile"] = package
from sandboxfile.engines.linux.helper import main
main()
"""
_MOUNT_BASES = ("/media", "/mnt", "/srv", "/opt", "/var/opt", "/var/local", "/boot", "/var/mail")

Ids = tuple[str, int, int]
"""The mode of an `IdMap`, and the sandboxes' user 0 and group 0 as the helper sees them."""


class Launched:
    """A helper that was started and has not been greeted yet."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, base: str) -> None:
        self.process = process
        self.channel = channel
        self.base = base

    def discard(self) -> None:
        """End it."""
        self.channel.close()
        self.process.kill()
        self.process.communicate()


_ahead: dict[str, tuple[Ids, Launched]] = {}


def launch_ahead(home: str) -> None:
    """Start the helper that the next client of a store will want. Nothing happens for a store that has no
    mapping of ids yet, or when anything fails: then the client starts its own, and reports."""
    try:
        with open(os.path.join(home, "idmap.json")) as file:
            record = json.load(file)
        mode = record["mode"]
        ids: Ids = (mode, record["uid"], record["gid"]) if mode == "root" else (mode, 1, 1)
        if (mode == "root") == (os.geteuid() == 0) and home not in _ahead:
            _ahead[home] = (ids, launch(home, ids))
    except (OSError, ValueError, KeyError, HostError):
        return


def take(home: str, ids: Ids) -> Launched:
    """The helper that was started ahead for a store, else a new one. Raises HostError, OSError."""
    known, launched = _ahead.pop(home, (None, None))
    if launched is not None:
        if known == ids and launched.process.poll() is None:
            return launched
        launched.discard()
    return launch(home, ids)


def launch(home: str, ids: Ids) -> Launched:
    """Start a helper. Raises HostError when there is no place for its mounts."""
    mode, guest_uid, guest_gid = ids
    base = mount_base(home)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = {
        "channel": theirs.fileno(),
        "mode": mode,
        "base": base,
        "guest_uid": guest_uid,
        "guest_gid": guest_gid,
        "cover_cgroups": not os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
    }
    here = os.path.realpath(__file__)
    package = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    python = sys.executable or shutil.which("python3") or "/usr/bin/python3"
    try:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with theirs:
            process = subprocess.Popen(
                [python, "-I", "-S", "-c", _BOOTSTRAP.format(package=package), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return Launched(process, ours, base)


def mount_base(home: str) -> str:
    """An existing directory that the helper may cover with its own mounts; it must not hide the store."""
    avoided = [os.path.realpath(path) for path in (home, sys.executable, __file__)] + [os.getcwd()]
    usable = [
        path
        for path in _MOUNT_BASES
        if os.path.isdir(path)
        and not os.path.islink(path)
        and not any(a.startswith(path + "/") for a in avoided)
    ]
    for path in usable:
        try:
            if not os.listdir(path):
                return path
        except OSError:
            continue
    if usable:
        return usable[0]
    raise HostError("there is no directory to mount sandboxes on", hint="mkdir /media")
