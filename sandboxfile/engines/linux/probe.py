"""What the linux engine needs of this machine, whether it is there, and what to do when it is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from sandboxfile.declared import dataclass, replace
from sandboxfile.errors import SandboxfileError

_KERNEL = (5, 13)
_DISK = 4 << 30
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Requirement:
    """One thing the engine wants.

    detail: what was found
    remedy: the exact command or commands, one a line; empty when it is met
    needed: False for what only some uses want
    """

    name: str
    ok: bool
    detail: str
    remedy: str
    needed: bool = True


def probe(
    environ: Mapping[str, str] = os.environ, *, home: Path | None = None, runtime: str | None = None
) -> tuple[Requirement, ...]:
    """Every requirement, in the order in which to mend them. Takes less than a second."""
    checks: list[Callable[[], Requirement]] = [
        _kernel,
        _user_namespaces,
        _subordinate_ids,
        _id_map_tools,
        lambda: _runtime(runtime or environ.get("SANDBOXFILE_RUNTIME")),
        _init,
        _sandbox_mounts,
        lambda: _program("mmdebstrap", "mmdebstrap", "--version"),
        lambda: _program("apt-get", "apt", "--version"),
        lambda: _program("dpkg-deb", "dpkg", "--version"),
        lambda: _program("gpgv", "gpgv", "--version"),
        _keyring,
        _uv,
        lambda: _disk(home or _default_home(environ)),
        lambda: replace(_program("pasta", "passt"), needed=False),
        _tun,
        _cgroups,
    ]
    return tuple(check() for check in checks)


def _kernel() -> Requirement:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    ok = numbers >= _KERNEL
    wanted = ".".join(map(str, _KERNEL))
    return Requirement("kernel", ok, f"Linux {release}", "" if ok else f"upgrade to Linux {wanted} or newer")


def _user_namespaces() -> Requirement:
    name = "user namespaces"
    switches = (
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=65536"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    )
    for file, bad, setting in switches:
        if (os.geteuid() != 0 or "max_user" in file) and _read(file) == bad:
            return Requirement(name, False, f"{file} is {bad}", f"sudo sysctl -w {setting}")
    return Requirement(name, True, "allowed", "")


def _subordinate_ids() -> Requirement:
    from sandboxfile.engines.linux.idmap import RANGE, choose_ids, own_ranges, subordinate_remedy

    name = "subordinate ids"
    if os.geteuid() == 0:
        try:
            return Requirement(
                name, True, f"root takes {choose_ids().uid} and the {RANGE - 1} ids after it", ""
            )
        except SandboxfileError as error:
            return Requirement(name, False, error.message, error.hint or "")
    for file in ("/etc/subuid", "/etc/subgid"):
        if not any(count >= RANGE for _, count in own_ranges(file)):
            return Requirement(name, False, f"{file} gives you no range of {RANGE} ids", subordinate_remedy())
    low, count = own_ranges("/etc/subuid")[0]
    return Requirement(name, True, f"{low} and the {count - 1} ids after it", "")


def _id_map_tools() -> Requirement:
    name = "newuidmap"
    if os.geteuid() == 0:
        return Requirement(name, True, "not needed by root", "")
    for tool in ("newuidmap", "newgidmap"):
        path = shutil.which(tool)
        if not path:
            return Requirement(name, False, f"{tool} is missing", "sudo apt-get install uidmap")
        about = os.stat(path)
        if not about.st_mode & 0o6000 and not _has_capability(path):
            return Requirement(name, False, f"{path} is not set-user-id", f"sudo chmod u+s {path}")
    return Requirement(name, True, "installed", "")


def _has_capability(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _runtime(wanted: str | None) -> Requirement:
    from sandboxfile.engines.linux.runtime import find_runtime

    try:
        path = find_runtime(wanted)
    except SandboxfileError as error:
        return Requirement("OCI runtime", False, error.message, error.hint or "")
    return Requirement("OCI runtime", True, f"{path} ({_first_line([path, '--version'])})", "")


def _init() -> Requirement:
    path = shutil.which("catatonit")
    if path:
        return Requirement("catatonit", True, path, "")
    return Requirement("catatonit", False, "not found", "sudo apt-get install catatonit")


def _sandbox_mounts() -> Requirement:
    """Really start a helper, mount an overlay and make the namespaces of a sandbox."""
    name = "overlay in a user namespace"
    outcome: list[str] = []

    def attempt() -> None:
        try:
            asyncio.run(_try_mounts())
        except SandboxfileError as error:
            outcome.append(error.message)
        except OSError as error:
            outcome.append(str(error))

    # In a thread of its own, because the caller may be inside of an event loop.
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if not outcome:
        return Requirement(name, True, "works", "")
    return Requirement(
        name,
        False,
        outcome[0],
        "mend what is missing above, or use a host that is not itself a locked-down container",
    )


async def _try_mounts() -> None:
    from sandboxfile.engines.linux.helper_client import HelperClient
    from sandboxfile.engines.linux.idmap import choose_ids
    from sandboxfile.engines.linux.operations import MakeDirectory, MakeNamespaces, MemoryMount, OverlayMount

    helper = HelperClient(Path("/nonexistent"), choose_ids())
    try:
        await helper.start()
        here = f"{helper.base}/trial"
        directories = [MakeDirectory(f"{here}/{each}", guest=True) for each in ("lower", "upper", "work")]
        await helper.do(
            MemoryMount(here),
            *directories,
            OverlayMount(f"{here}/root", [f"{here}/lower"], f"{here}/upper", f"{here}/work"),
            MakeNamespaces(f"{here}/net"),
        )
    finally:
        await helper.close()


def _program(program: str, package: str, *version: str) -> Requirement:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        return Requirement(program, False, "not found", f"sudo apt-get install {package}")
    detail = _first_line([path, *version]) if version else path
    return Requirement(program, True, detail or path, "")


def _keyring() -> Requirement:
    if os.path.exists(_KEYRING) or os.path.exists(_KEYRING.replace(".gpg", ".pgp")):
        return Requirement("archive keyring", True, _KEYRING, "")
    return Requirement("archive keyring", False, "not found", "sudo apt-get install debian-archive-keyring")


def _uv() -> Requirement:
    try:
        from uv import find_uv_bin

        return Requirement("uv", True, find_uv_bin(), "")
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv")
    return Requirement("uv", bool(path), path or "not found", "" if path else "python3 -m pip install uv")


def _disk(home: Path) -> Requirement:
    there = home
    try:
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
    except OSError as error:
        remedy = "set SANDBOXFILE_HOME to a directory of your own"
        return Requirement("disk space", False, f"{home}: {(error.strerror or '').lower()}", remedy)
    detail = f"{free / (1 << 30):.1f} GB free at {there}"
    return Requirement("disk space", free >= _DISK, detail, "" if free >= _DISK else "sandboxfile cache gc")


def _default_home(environ: Mapping[str, str]) -> Path:
    if environ.get("SANDBOXFILE_HOME"):
        return Path(environ["SANDBOXFILE_HOME"])
    data = environ.get("XDG_DATA_HOME")
    return Path(data) / "sandboxfile" if data else Path.home() / ".local" / "share" / "sandboxfile"


def _tun() -> Requirement:
    name = "/dev/net/tun"
    try:
        os.close(os.open(name, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Requirement(
            name, False, "missing: sandboxes get no network", "sudo modprobe tun", needed=False
        )
    except OSError as error:
        detail = f"{error.strerror}: your sandboxes get no network"
        return Requirement(name, False, detail, "sudo chmod 0666 /dev/net/tun", needed=False)
    return Requirement(name, True, "can be opened", "", needed=False)


def _cgroups() -> Requirement:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        kind = "v2"
    elif os.path.exists("/sys/fs/cgroup/unified"):
        kind = "v1 and v2 side by side"
    else:
        kind = "v1" if os.path.isdir("/sys/fs/cgroup/memory") else "none"
    return Requirement("cgroups", True, kind, "", needed=False)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]
