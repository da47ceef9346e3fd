"""Control groups for an ordinary user whose login has none of its own to give.

systemd keeps the processes of a login (over ssh, on a console) in a session's group, which belongs to root;
the controllers it gives to a user are beside that, in the group of the user's own systemd. A user may not
move a process from the one to the other. systemd may, and does when it is asked for a scope: a group with
processes that somebody else has started (org.freedesktop.systemd1(5), StartTransientUnit).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from sandboxfile.engines.linux.cgroups import CONTROLLERS, ROOT

RUN = "/run/user"
_DEADLINE = 5.0
_MANAGER = "org.freedesktop.systemd1"


def manager(root: str = ROOT, uid: int | None = None) -> str:
    """The group of the systemd of a user, this process's by default, there or not."""
    number = os.geteuid() if uid is None else uid
    return f"{root}/user.slice/user-{number}.slice/user@{number}.service"


def is_offered(root: str = ROOT, run: str = RUN) -> bool:
    """Whether the user's own systemd can be asked, and has all controllers. Changes nothing."""
    place = manager(root)
    try:
        offered = Path(place, "cgroup.controllers").read_text().split()
    except OSError:
        return False
    return (
        os.geteuid() != 0
        and set(CONTROLLERS) <= set(offered)
        and os.access(f"{place}/cgroup.procs", os.W_OK)
        and os.path.exists(bus(run))
        and shutil.which("busctl") is not None
    )


def enter(pid: int) -> bool:
    """Have systemd put a process of ours into a scope; whether it is there (blocking)."""
    name = f"sandboxfile-{pid}-{os.urandom(4).hex()}.scope"
    properties = [
        *("4", "Description", "s", "Sandboxes of sandboxfile", "PIDs", "au", "1", str(pid)),
        *("Delegate", "b", "true", "CollectMode", "s", "inactive-or-failed"),
    ]
    address = f"unix:path={bus()}"
    call = [
        *("busctl", f"--address={address}", "--timeout=5", "--quiet", "call", _MANAGER),
        *("/org/freedesktop/systemd1", f"{_MANAGER}.Manager", "StartTransientUnit"),
        *("ssa(sv)a(sa(sv))", name, "fail", *properties, "0"),
    ]
    try:
        done = subprocess.run(
            call, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and _arrives(pid, name)


def _arrives(pid: int, name: str) -> bool:
    """The answer comes before the process has been moved: wait for that."""
    until = time.monotonic() + _DEADLINE
    while time.monotonic() < until:
        try:
            if name in Path(f"/proc/{pid}/cgroup").read_text():
                return True
        except OSError:
            return False
        time.sleep(0.002)
    return False


def bus(run: str = RUN) -> str:
    """The socket of the bus of the user, there or not."""
    return f"{run}/{os.geteuid()}/bus"
