"""The relay process: a worker that stays as long as the sandbox whose connections it passes on."""

from __future__ import annotations

import json
import os
import resource
import socket

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.intercept import destination_of, intercept
from sandboxfile.engines.linux.netlink import RTN_UNICAST, route_kind
from sandboxfile.engines.linux.relay.destination import Address, may_be_reached
from sandboxfile.engines.linux.relay.loop import IN, Loop
from sandboxfile.engines.linux.relay.resolver import Resolver
from sandboxfile.engines.linux.relay.streams import CONNECTIONS, Streams
from sandboxfile.engines.linux.resolvconf import host_name_servers
from sandboxfile.engines.linux.worker.tasks import Context, close_others

_NOBODY = 65534
_SPARE = 256
"""Descriptors for all that is no connection: questions, mostly."""
_SOMEWHERE_V6 = "2000::1"
"""The first address that IPv6 gives to anybody: there is a way to it if there is one to the Internet."""


def relay(context: Context) -> None:
    """Relay what the network namespace in the file `net` sends, until the directory `place` is removed.
    `descriptors[0]` takes the answer, which is given when everything is ready."""
    net, place = context.args["net"], context.args["place"]
    most = min(CONNECTIONS, (_raise_limit() - _SPARE) // 2)
    removal = sys_.watch_removal(place)
    v6 = route_kind(_SOMEWHERE_V6) == RTN_UNICAST
    taken = intercept(net, v6=v6)
    _drop_rights()
    sys_.prctl(sys_.PR_SET_NAME, b"sandbox-relay")
    sockets = (*taken.streams, taken.dns_streams, taken.dns_datagrams)
    kept = {each.fileno() for each in sockets} | {0, 1, 2, removal, context.descriptors[0]}
    close_others(kept)
    with open(context.descriptors[0], "wb") as answer:
        answer.write(json.dumps({"result": {"v6": v6}}).encode())
    loop = Loop()
    loop.watch(removal, IN, lambda _: loop.end())
    Streams(loop, taken.streams, _decide, most)
    Resolver(loop, taken.dns_datagrams, taken.dns_streams, _servers)
    try:
        loop.run()
    finally:
        os._exit(0)


def _decide(connection: socket.socket) -> tuple[Address, int] | None:
    """Where the sandbox wanted to, if that is no place of this machine's."""
    address, port = destination_of(connection)
    return (address, port) if may_be_reached(address, port, route_kind) else None


def _servers() -> list[tuple[str, int]]:
    """Looked up for each question: a machine that moves has others."""
    return [(address, 53) for address in host_name_servers()]


def _raise_limit() -> int:
    """Take as many descriptors as this process may; how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def _drop_rights() -> None:
    """Keep nothing but what every program has. Root's becomes nobody's; a user's own stays the user's, whose
    namespace has no name for anybody else who is not a sandbox."""
    with open("/proc/self/uid_map") as file:
        whole = file.read().split()[2] == str((1 << 32) - 1)
    if whole:
        os.setgroups([])
        os.setresgid(*[_NOBODY] * 3)
        os.setresuid(*[_NOBODY] * 3)
    sys_.drop_capabilities()
