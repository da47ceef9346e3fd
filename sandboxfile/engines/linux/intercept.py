"""Taking what a network namespace sends, by sockets that are made inside of it and accepted outside.

This is the part inside: every TCP connection that a sandbox opens, to whatever address, arrives at a socket
that the helper holds. Who accepts there decides what becomes of it. The sandbox has no right to change any
of this, since it has no CAP_NET_ADMIN.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from sandboxfile.engines.linux import netlink
from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.nftables import redirect_outgoing

Address = IPv4Address | IPv6Address

OWN = "198.18.0.52"
"""The sandbox's own address, from the range for benchmarks, which is routed nowhere."""
OWN_V6 = "fd53:414e:4442:4f58::52"
DNS = "198.18.0.53"
"""Where the sandbox asks for names."""
_OWN_AND_DNS = "198.18.0.52/31"
_DNS_PORT = 53
_PORT = 1
"""The port of the sandbox's loopback that its connections are led to: one that nobody uses, and that no
connection gets as its own. Nothing listens there for UDP, so that packets are answered as refused."""
_BACKLOG = 128
_BUFFER = 1 << 18
_SO_ORIGINAL_DST = 80
_CONNTRACK = {
    "nf_conntrack_tcp_timeout_time_wait": 5,
    "nf_conntrack_tcp_timeout_close": 5,
    "nf_conntrack_udp_timeout": 5,
    "nf_conntrack_udp_timeout_stream": 5,
}
"""Keeps short what a sandbox that opens connections in a loop makes the kernel remember."""


class Intercepted(NamedTuple):
    """Sockets in the sandbox's network namespace, not blocking, the holder's to close.

    streams:       accept every TCP connection that is not to the sandbox itself; see `destination_of`
    dns_streams:   accept TCP connections to the name server the sandbox is given
    dns_datagrams: takes the UDP packets for that
    """

    streams: tuple[socket.socket, ...]
    dns_streams: socket.socket
    dns_datagrams: socket.socket


def intercept(net: str, *, v6: bool) -> Intercepted:
    """Lead what the network namespace of a file sends to sockets. Called once, before anything runs there.

    v6: whether IPv6 has somewhere to go; otherwise it is unreachable at once
    Raises OSError where the kernel has not what it takes.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _inside(lambda: _furnish(net, v6), theirs)
    theirs.close()
    with ours:
        said, descriptors, _, _ = socket.recv_fds(ours, 4096, 8, socket.MSG_CMSG_CLOEXEC)
    os.waitpid(pid, 0)
    if not descriptors:
        number, reason, what = json.loads(said) if said else (1, "the network cannot be entered", net)
        raise OSError(number, reason, what)
    *streams, dns_streams, dns_datagrams = [socket.socket(fileno=each) for each in descriptors]
    return Intercepted(tuple(streams), dns_streams, dns_datagrams)


def destination_of(connection: socket.socket) -> tuple[Address, int]:
    """The address and port that an accepted connection was meant for. Raises OSError."""
    if connection.family == socket.AF_INET:
        found = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        return IPv4Address(found[4:8]), struct.unpack_from(">H", found, 2)[0]
    found = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
    return IPv6Address(found[8:24]), struct.unpack_from(">H", found, 2)[0]


def _inside(body: Callable[[], list[socket.socket]], channel: socket.socket) -> None:
    """In the child: make the sockets and pass them on."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            made = body()
        except OSError as error:
            channel.send(json.dumps([error.errno, error.strerror, str(error.filename or "")]).encode())
        else:
            socket.send_fds(channel, [b"s"], [each.fileno() for each in made])
    finally:
        os._exit(0)


def _furnish(net: str, v6: bool) -> list[socket.socket]:
    descriptor = os.open(net, os.O_RDONLY | os.O_CLOEXEC)
    sys_.setns(descriptor, sys_.CLONE_NEWNET)
    spared = ["127.0.0.0/8", _OWN_AND_DNS]
    for address in (OWN, DNS):
        netlink.add_address(address)
    netlink.keep_inside(OWN)
    # Else the sandbox's own kernel would answer its pings, in the name of whoever was meant.
    netlink.block_protocol(socket.AF_INET, socket.IPPROTO_ICMP)
    listeners = [_listener(socket.AF_INET, ("127.0.0.1", _PORT))]
    if v6:
        spared += ["::1/128", f"{OWN_V6}/128"]
        netlink.add_address(OWN_V6)
        netlink.keep_inside(OWN_V6)
        netlink.block_protocol(socket.AF_INET6, socket.IPPROTO_ICMPV6)
        listeners.append(_listener(socket.AF_INET6, ("::1", _PORT)))
    redirect_outgoing(_PORT, spared)
    _shorten_memory()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    datagrams.bind((DNS, _DNS_PORT))
    return [*listeners, _listener(socket.AF_INET, (DNS, _DNS_PORT)), datagrams]


def _listener(family: int, address: tuple[str, int]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # What is accepted here inherits both: over the loopback more would be of no use.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    listener.bind(address)
    listener.listen(_BACKLOG)
    return listener


def _shorten_memory() -> None:
    for name, value in _CONNTRACK.items():
        try:
            with open(f"/proc/sys/net/netfilter/{name}", "w") as file:
                file.write(str(value))
        except OSError:
            # Kernels differ in what a namespace may set for itself.
            continue
