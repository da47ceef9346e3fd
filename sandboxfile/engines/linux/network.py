"""The network of build steps and sandboxes: none, or all of it through pasta or a relay.

`none` is a network namespace with only `lo`. `full` attaches pasta to it, with every forward off and
without the map that leads from the gateway to the host's loopback; or, where pasta cannot be used, a relay
below the helper (`relay`) passes on TCP and DNS. The host's own addresses and link-local ones are made
unreachable before any command runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.intercept import DNS
from sandboxfile.engines.linux.operations import BindMount, MakeNamespaces, ReadText, Signal, Spawn, WriteFile
from sandboxfile.engines.linux.resolvconf import host_name_servers
from sandboxfile.engines.linux.runtime import DEFAULT_PATH
from sandboxfile.engines.linux.runtimespec import BoundMount
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError, HostError, MissingCapability

_DEADLINE = 10.0
_TUN = "/dev/net/tun"
RELAYED = "only TCP and DNS pass, a connection that is refused shows as a reset, and there is no ping"
CA_TARGET = "/run/sandboxfile/ca.pem"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

Prepared = tuple[str, list[BoundMount], dict[str, str]]
"""The directory of the namespaces, what a command with network sees mounted, and its variables."""


class Obstacle(NamedTuple):
    """Why something cannot be used, as a part of a sentence, and the command that mends it."""

    sentence: str
    remedy: str


class Networks:
    """Makes the namespaces of sandboxes, and connects those that asked for it.

    by:     `pasta` or `relay` is what connects them; None is pasta where it can be used, else the relay
    notify: told, once, when `full` is less than it could be
    """

    def __init__(
        self,
        helper: HelperClient,
        host_ca: Path | None,
        environ: Mapping[str, str],
        by: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._helper = helper
        self._host_ca = host_ca
        self._environ = environ
        self._by = by
        self._notify = notify
        self._notified = False

    async def for_build(self, mode: str, directory: str, made: dict[str, str]) -> Prepared:
        """The network of a build step; `made` remembers what a workspace already has, by mode."""
        check_mode(mode)
        if mode not in made:
            place = f"{directory}-{mode}"
            await self.make(mode, place)
            made[mode] = place
        mounts, env = await self.outfit(mode, made[mode])
        return made[mode], mounts, env

    async def make(self, mode: str, place: str, processes: int | None = None) -> tuple[str, ...]:
        """Make the namespaces `user` and `net` in a directory, and connect them when `mode` is `full`.
        `processes` is the most that the user namespace holds. Returns a sentence for each thing that `full`
        lacks. Raises HostError when nothing can connect them."""
        check_mode(mode)
        if mode != "full":
            await self._helper.do(MakeNamespaces(place, processes))
            return ()
        obstacle = pasta_obstacle()
        if self._by == "pasta" and obstacle is not None:
            raise HostError(f"{obstacle.sentence}, so pasta cannot be used", hint=obstacle.remedy)
        await self._helper.do(MakeNamespaces(place, processes))
        warnings: tuple[str, ...] = ()
        if self._by == "relay" or obstacle is not None:
            warnings = (await self._relay(place, obstacle),)
        else:
            servers, forward = _name_servers(host_name_servers())
            await self._start_pasta(place, forward)
            await self._write_servers(place, servers)
        await work(self._helper, "block", {"net": f"{place}/net"}, mapped=False)
        if self._host_ca:
            await self._helper.do(BindMount(str(self._host_ca.resolve()), f"{place}/ca.pem"))
        return warnings

    async def outfit(self, mode: str, place: str) -> tuple[list[BoundMount], dict[str, str]]:
        """What a command with network is given: name servers, and the host's certificates when wanted."""
        if mode != "full":
            return [], {}
        mounts = [BoundMount(f"{place}/resolv.conf", "/etc/resolv.conf")]
        env = {name: self._environ[name] for name in PROXY_VARIABLES if self._environ.get(name)}
        if self._host_ca:
            mounts.append(BoundMount(f"{place}/ca.pem", CA_TARGET))
            env |= dict.fromkeys(_CA_VARIABLES, CA_TARGET)
        return mounts, env

    async def _relay(self, place: str, obstacle: Obstacle | None) -> str:
        """Connect a namespace by a relay; what is to be said about that."""
        because = f"because {obstacle.sentence}" if obstacle else "as the setting `full-network` says"
        try:
            await work(
                self._helper, "relay", {"net": f"{place}/net", "place": place}, mapped=False, stays=True
            )
        except EngineError as error:
            lacks = "this kernel cannot redirect connections to a relay"
            raise HostError(
                f"a sandbox cannot get a network: {obstacle.sentence}, and {lacks}" if obstacle else lacks,
                hint=obstacle.remedy if obstacle else "sudo modprobe -a nft_chain_nat nft_redir",
                details=(error.message,),
            ) from None
        await self._write_servers(place, [DNS])
        warning = f"the network is relayed, {because}: {RELAYED}"
        if obstacle:
            warning += f"; for all of it: {obstacle.remedy}"
        if not self._notified:
            self._notified = True
            self._notify(warning)
        return warning

    async def _write_servers(self, place: str, servers: list[str]) -> None:
        text = "".join(f"nameserver {server}\n" for server in servers)
        await self._helper.do(WriteFile(f"{place}/resolv.conf", text))

    async def _start_pasta(self, place: str, forward: bool) -> None:
        argv = [
            # Not its real path: the program is passt's, and acts by the name it was called.
            os.path.abspath(shutil.which("pasta") or "/usr/bin/pasta"),
            *("--netns", f"{place}/net", "--userns", f"{place}/user", "--config-net"),
            *("-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"),
            *("--log-file", f"{place}/pasta.log", "-P", f"{place}/pasta.pid", "-q"),
        ]
        if forward:
            argv += ["--dns-forward", DNS]
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


def pasta_obstacle() -> Obstacle | None:
    """Why pasta cannot connect sandboxes of this user on this host; None when it can."""
    if not shutil.which("pasta"):
        return Obstacle("the program `pasta` is missing", "sudo apt-get install passt")
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Obstacle(f"{_TUN} is missing", "sudo modprobe tun")
    except OSError:
        return Obstacle(f"{_TUN} cannot be opened", f"sudo chmod 0666 {_TUN}")
    return None


def _name_servers(servers: list[str]) -> tuple[list[str], bool]:
    """The servers for a sandbox, and whether pasta has to forward to the host's resolver."""
    import ipaddress

    found = []
    for server in servers:
        address = ipaddress.ip_address(server.partition("%")[0])
        if not (address.is_loopback or address.is_link_local):
            found.append(str(address))
    return (found, False) if found else ([DNS], True)
