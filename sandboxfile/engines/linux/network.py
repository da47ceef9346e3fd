"""The network of build steps and sandboxes: none, or all of it through pasta.

`none` is a network namespace with only `lo`. `full` attaches pasta to it, with every forward off and
without the map that leads from the gateway to the host's loopback; the host's own addresses and link-local
ones are made unreachable before any command runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import BindMount, MakeNamespaces, ReadText, Signal, Spawn, WriteFile
from sandboxfile.engines.linux.runtime import DEFAULT_PATH
from sandboxfile.engines.linux.runtimespec import BoundMount
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, HostError, MissingCapability

_DEADLINE = 10.0
_DNS_FORWARD = "198.18.0.53"
"""Asked by sandboxes where the host's own resolver is not to be reached; from the range for benchmarks,
which is routed nowhere."""
CA_TARGET = "/run/sandboxfile/ca.pem"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

Prepared = tuple[str, list[BoundMount], dict[str, str]]
"""The directory of the namespaces, what a command with network sees mounted, and its variables."""


class Networks:
    """Makes the namespaces of sandboxes, and connects those that asked for it."""

    def __init__(self, helper: HelperClient, host_ca: Path | None, environ: Mapping[str, str]) -> None:
        self._helper = helper
        self._host_ca = host_ca
        self._environ = environ

    async def for_build(self, mode: str, directory: str, made: dict[str, str]) -> Prepared:
        """The network of a build step; `made` remembers what a workspace already has, by mode."""
        check_mode(mode)
        if mode not in made:
            place = f"{directory}-{mode}"
            await self.make(mode, place)
            made[mode] = place
        mounts, env = await self.outfit(mode, made[mode])
        return made[mode], mounts, env

    async def make(self, mode: str, place: str, processes: int | None = None) -> None:
        """Make the namespaces `user` and `net` in a directory, and connect them when `mode` is `full`.
        `processes` is the most that the user namespace holds."""
        check_mode(mode)
        if mode == "full":
            self._check_tun()
        await self._helper.do(MakeNamespaces(place, processes))
        if mode == "full":
            await self._connect(place)

    async def outfit(self, mode: str, place: str) -> tuple[list[BoundMount], dict[str, str]]:
        """What a command with network is given: name servers, and the host's certificates when wanted."""
        if mode != "full":
            return [], {}
        mounts = [BoundMount(f"{place}/resolv.conf", "/etc/resolv.conf")]
        env = {name: self._environ[name] for name in _PROXY_VARIABLES if self._environ.get(name)}
        if self._host_ca:
            mounts.append(BoundMount(f"{place}/ca.pem", CA_TARGET))
            env |= dict.fromkeys(_CA_VARIABLES, CA_TARGET)
        return mounts, env

    @staticmethod
    def _check_tun() -> None:
        if not shutil.which("pasta"):
            raise HostError(
                "`pasta` is missing, which gives sandboxes their network", hint="sudo apt-get install passt"
            )
        try:
            os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise HostError("/dev/net/tun is missing", hint="sudo modprobe tun") from None
            raise HostError(
                "/dev/net/tun cannot be opened, so a sandbox cannot get a network",
                hint="sudo chmod 0666 /dev/net/tun",
            ) from None

    async def _connect(self, place: str) -> None:
        servers, forward = _name_servers(_host_resolver())
        await self._start_pasta(place, forward)
        await work(self._helper, "block", {"net": f"{place}/net"}, mapped=False)
        text = "".join(f"nameserver {server}\n" for server in servers)
        await self._helper.do(WriteFile(f"{place}/resolv.conf", text))
        if self._host_ca:
            await self._helper.do(BindMount(str(self._host_ca.resolve()), f"{place}/ca.pem"))

    async def _start_pasta(self, place: str, forward: bool) -> None:
        argv = [
            # Not its real path: the program is passt's, and acts by the name it was called.
            os.path.abspath(shutil.which("pasta") or "/usr/bin/pasta"),
            *("--netns", f"{place}/net", "--userns", f"{place}/user", "--config-net"),
            *("-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"),
            *("--log-file", f"{place}/pasta.log", "-P", f"{place}/pasta.pid", "-q"),
        ]
        if forward:
            argv += ["--dns-forward", _DNS_FORWARD]
        if os.geteuid() == 0:
            argv += ["--runas", "0:0"]
        job = self._helper.new_job()
        await self._helper.do(Spawn(job, argv, {"PATH": DEFAULT_PATH}))
        try:
            code = await asyncio.wait_for(self._helper.exit_of(job), _DEADLINE)
        except TimeoutError:
            await self._helper.do(Signal(job, 9, tree=True))
            raise HostError(
                "pasta did not start in time, so the sandbox has no network",
                hint="sudo chmod 0666 /dev/net/tun",
            ) from None
        if code:
            (log,) = await self._helper.do(ReadText("/", f"{place}/pasta.log"))
            raise EngineError(
                f"pasta could not connect the sandbox (status {code})",
                hint="run `sandboxfile doctor`",
                details=tuple((log or "").splitlines()[-5:]),
            )


def check_mode(mode: str) -> None:
    """Raise MissingCapability for a network this engine cannot make."""
    if mode.startswith("filtered"):
        raise MissingCapability(
            "the linux engine cannot limit the network to named hosts yet",
            "network-filtered",
            hint="use `network: true` for all of it, or none",
        )
    if mode not in ("none", "full"):
        raise EngineError(f"there is no network mode `{mode}`")


def _host_resolver() -> str:
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            return Path(path).read_text()
        except OSError:
            continue
    return ""


def _name_servers(text: str) -> tuple[list[str], bool]:
    """The servers for a sandbox, and whether pasta has to forward to the host's resolver."""
    import ipaddress

    servers: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local):
                servers.append(str(address))
    return (servers, False) if servers else ([_DNS_FORWARD], True)
