"""A Debian base from exactly the locked packages, made by mmdebstrap without network."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.core.layer import DebianBase, PackagePin
from sandboxfile.engine.base import Output
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import BindMount, MakeDirectory, Unmount
from sandboxfile.engines.linux.runtime import DEFAULT_PATH
from sandboxfile.engines.linux.runtimespec import HOSTNAME
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import BuildError, HostError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.workspace import LinuxWorkspace

_READERS = 4
_LAST_LINES = 20
HOSTS = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost {HOSTNAME} ip6-localhost ip6-loopback\n"
POLICY = "#!/bin/sh\n# Services are not started while packages are installed.\nexit 101\n"


async def bootstrap_debian(
    helper: HelperClient,
    workspace: LinuxWorkspace,
    base: DebianBase,
    packages: Mapping[str, Path],
    output: Output,
) -> None:
    """Fill an empty workspace. Raises BuildError when the result is not what the lock says."""
    program = shutil.which("mmdebstrap")
    if not program:
        raise HostError(
            "`mmdebstrap` is missing, which makes Debian bases", hint="sudo apt-get install mmdebstrap"
        )
    here = f"{helper.base}/bootstrap-{secrets.token_hex(6)}"
    files, texts = await asyncio.to_thread(_archive, base, packages)
    tail = _Tail(output)
    await helper.do(
        MakeDirectory(here),
        MakeDirectory(f"{here}/tmp", 0o1777),
        BindMount(workspace.upper, f"{here}/root", False),
    )
    try:
        archive = f"{here}/archive"
        await work(helper, "repository", {"path": archive, "files": files, "texts": texts}, mapped=False)
        env = {
            "PATH": DEFAULT_PATH,
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": f"{here}/tmp",
            "SOURCE_DATE_EPOCH": str(base.epoch),
            "DEBIAN_FRONTEND": "noninteractive",
        }
        args = {"argv": _command(program, base, archive, f"{here}/root"), "env": env}
        result = await work(helper, "bootstrap", args, deliver=tail)
    finally:
        if helper.running:
            await helper.do(Unmount(here))
    if result["code"]:
        raise BuildError(
            f"mmdebstrap could not make the base {base.suite} (status {result['code']})", details=tail.lines()
        )
    await _fix_content(workspace)
    await _compare(workspace, base.packages)


def _command(program: str, base: DebianBase, archive: str, target: str) -> list[str]:
    names = ",".join(sorted({package.name for package in base.packages}))
    return [
        program,
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--architectures={base.architecture}",
        f"--include={names}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Sandbox::User "root"',
        "--dpkgopt=force-unsafe-io",
        "--skip=check/empty,check/qemu,check/signed-by,cleanup/apt/lists",
        base.suite,
        target,
        f"deb [trusted=yes] copy://{archive} {base.suite} main",
    ]


def _archive(base: DebianBase, packages: Mapping[str, Path]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The files of a local archive and its indexes, from the packages' own control records."""
    missing = [package.name for package in base.packages if package.sha256 not in packages]
    if missing:
        raise BuildError(f"packages of the base were not fetched: {', '.join(sorted(missing))}")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_READERS) as pool:
        stanzas = list(pool.map(lambda package: _stanza(package, packages[package.sha256]), base.packages))
    files = [(str(packages[p.sha256].resolve()), _pool_path(p)) for p in base.packages]
    text = "\n".join(stanzas)
    index = f"main/binary-{base.architecture}/Packages"
    release = (
        f"Origin: sandboxfile\nSuite: {base.suite}\nCodename: {base.suite}\n"
        f"Date: {formatdate(base.epoch, usegmt=True)}\nArchitectures: {base.architecture}\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(text.encode()).hexdigest()} {len(text.encode())} {index}\n"
    )
    dists = f"dists/{base.suite}"
    return files, {f"{dists}/{index}": text, f"{dists}/Release": release}


def _pool_path(package: PackagePin) -> str:
    version = package.version.replace(":", "%3a")
    return f"pool/main/{package.name}_{version}_{package.arch}.deb"


def _stanza(package: PackagePin, path: Path) -> str:
    done = subprocess.run(["dpkg-deb", "-f", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the package {package.name} cannot be read: {done.stderr.strip()}")
    # A copied package's own record may name another place.
    lines = [
        line for line in done.stdout.splitlines() if not line.startswith(("Filename:", "Size:", "SHA256:"))
    ]
    lines += [f"Filename: {_pool_path(package)}", f"Size: {path.stat().st_size}", f"SHA256: {package.sha256}"]
    return "\n".join(lines) + "\n"


async def _fix_content(workspace: LinuxWorkspace) -> None:
    """Replace what mmdebstrap copied from this machine by fixed content."""
    for path in (
        "/etc/apt/sources.list",
        "/etc/apt/sources.list.d/0000sources.list",
        "/etc/resolv.conf",
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    ):
        await workspace.remove(path)
    await workspace.write_texts(
        {
            "/etc/hostname": (f"{HOSTNAME}\n", 0o644),
            "/etc/hosts": (HOSTS, 0o644),
            "/etc/resolv.conf": ("", 0o644),
            "/usr/sbin/policy-rc.d": (POLICY, 0o755),
        }
    )


async def _compare(workspace: LinuxWorkspace, wanted: tuple[PackagePin, ...]) -> None:
    status = (await workspace.read("/var/lib/dpkg/status")).decode("utf-8", "replace")
    installed = set()
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if line[:1].strip() and ": " in line
        )
        if fields.get("Status") == "install ok installed":
            installed.add((fields["Package"], fields["Version"], fields["Architecture"]))
    expected = {(package.name, package.version, package.arch) for package in wanted}
    if installed != expected:
        lacking = [f"missing: {' '.join(row)}" for row in sorted(expected - installed)]
        extra = [f"not in the lock: {' '.join(row)}" for row in sorted(installed - expected)]
        raise BuildError(
            "the bootstrapped base does not hold the locked packages",
            details=(*lacking, *extra),
            hint="sandboxfile lock --update",
        )


class _Tail:
    """Passes output on and remembers its last lines."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._text = b""

    def __call__(self, data: bytes) -> None:
        self._output("stdout", data)
        self._text = (self._text + data)[-16384:]

    def lines(self) -> tuple[str, ...]:
        return tuple(self._text.decode("utf-8", "replace").splitlines()[-_LAST_LINES:])
