"""Starting a keeper."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping

from sandboxfile.engines.linux.detached.sockets import prepare
from sandboxfile.engines.linux.network import PROXY_VARIABLES

_CHANNEL = 3
_FREE = 10
_KEPT = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", *PROXY_VARIABLES)
# The package itself is not imported: its front door would load far more than a keeper needs.
_BOOTSTRAP = """
import sys
package = type(sys)("sandboxfile")
package.__path__ = [{package!r}]
sys.modules["sandboxfile"] = package
from sandboxfile.engines.linux.detached.keeper import main
main({channel})
"""

_children: set[int] = set()


def launch(environ: Mapping[str, str]) -> tuple[int, socket.socket]:
    """Start a keeper: its process and the connection to it. Raises OSError.

    It goes on when this process ends, and has nothing of it but what is needed of its environment: a
    session and standard streams of its own, no other descriptor.
    """
    reap()
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
    python = sys.executable or shutil.which("python3") or "/usr/bin/python3"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = -1
    try:
        prepare(ours)
        prepare(theirs)
        # Out of the way of the numbers that it gets in the new process.
        given = _above(theirs.fileno())
        text = _BOOTSTRAP.format(package=package, channel=_CHANNEL)
        pid = os.posix_spawn(
            python,
            [python, "-I", "-S", "-c", text],
            {name: environ[name] for name in _KEPT if name in environ},
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)),
                (os.POSIX_SPAWN_DUP2, given, _CHANNEL),
            ],
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if given >= 0:
            os.close(given)
    _children.add(pid)
    return pid, ours


def reap() -> None:
    """Take note of keepers started here that have ended meanwhile."""
    for pid in tuple(_children):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        except ChildProcessError:
            # Somebody who waits for every child of this program was faster.
            pass
        _children.discard(pid)


def _above(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FREE)
