"""The few questions and settings of a network namespace that the kernel is asked over rtnetlink(7), without
any program."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

RTN_UNICAST = 1
"""The kind of a destination that packets leave this machine for."""

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_LOOPBACK = 1
"""The number of `lo`, which is the first interface of every network namespace."""
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_GETROUTE = 26
_RTM_NEWRULE = 32
_NLM_REQUEST = 0x1
_NLM_REQUEST_DUMP = 0x1 | 0x300
_NLM_REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400
_FR_ACT_UNREACHABLE = 7
_FRA_DST = 1
_FRA_PRIORITY = 6
_FRA_IP_PROTO = 22
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_NODAD = 0x2
_RTA_DST = 1
_RTA_OIF = 4
_RTA_PREFSRC = 7
_RTN_LOCAL = 2
_RT_TABLE_MAIN = 254
_RTPROT_STATIC = 4
_RT_SCOPE_HOST = 254


def bring_up(interface: str) -> None:
    """Switch an interface on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", interface.encode(), 0)
        flags = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | _IFF_UP))


def addresses() -> list[str]:
    """Every address of this network namespace."""
    found: list[str] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.send(struct.pack("=IHHIIB3xI", 24, _RTM_GETADDR, _NLM_REQUEST_DUMP, 1, 0, 0, 0))
        while True:
            data = channel.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return found
                family = data[16]
                for tag, value in _attributes(data[24:length]):
                    if tag in (_IFA_ADDRESS, _IFA_LOCAL):
                        found.append(socket.inet_ntop(family, value))
                data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 4:
        length, tag = struct.unpack_from("=HH", data)
        found.append((tag, data[4:length]))
        data = data[(length + 3) & ~3 :]
    return found


def block(network: str) -> None:
    """Make a network (`169.254.0.0/16`) unreachable from this network namespace, by a rule that is asked
    before any route: a route alone does not hold for programs that name an interface."""
    address, _, bits = network.partition("/")
    family, packed = _packed(address)
    _refuse(family, int(bits), attribute(_FRA_DST, packed), network)


def block_protocol(family: int, protocol: int) -> None:
    """Make a protocol (`socket.IPPROTO_ICMP`) unable to leave this network namespace's own addresses."""
    _refuse(family, 0, attribute(_FRA_IP_PROTO, bytes([protocol])), f"protocol {protocol}")


def _refuse(family: int, bits: int, selector: bytes, what: str) -> None:
    body = struct.pack("=BBBBBBBBI", family, bits, 0, 0, 0, 0, 0, _FR_ACT_UNREACHABLE, 0)
    _request(_RTM_NEWRULE, body + selector + attribute(_FRA_PRIORITY, struct.pack("=I", 1)), what)


def add_address(address: str) -> None:
    """Give `lo` an address, and with it this network namespace."""
    family, packed = _packed(address)
    body = struct.pack("=BBBBI", family, len(packed) * 8, _IFA_F_NODAD, 0, _LOOPBACK)
    _request(_RTM_NEWADDR, body + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed), address)


def keep_inside(source: str) -> None:
    """Deliver whatever has no other route to this network namespace itself, sent from its address `source`.
    The route is in the main table, so that no socket can be bound to an address which is not there."""
    family, packed = _packed(source)
    where = (_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL)
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, *where, 0)
    oif = attribute(_RTA_OIF, struct.pack("=I", _LOOPBACK))
    _request(_RTM_NEWROUTE, body + oif + attribute(_RTA_PREFSRC, packed), source)


def route_kind(address: str) -> int | None:
    """What the routing table of this network namespace makes of a destination (`RTN_UNICAST`, or one of the
    other kinds of rtnetlink(7): local, broadcast, multicast…); None when it leads nowhere."""
    try:
        family, packed = _packed(address)
        body = struct.pack("=BBBBBBBBI", family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
        answer = _ask(_RTM_GETROUTE, _NLM_REQUEST, body + attribute(_RTA_DST, packed), address)
    except OSError:
        # Unreachable and prohibited destinations are answered so, and a family the kernel does not have.
        return None
    return answer[23]


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def attribute(tag: int, value: bytes) -> bytes:
    """One attribute of a message, as netlink(7) wants it."""
    return struct.pack("=HH", 4 + len(value), tag) + value + bytes(-len(value) % 4)


def _request(kind: int, payload: bytes, what: str) -> None:
    """Have something made; that it is there already is no failure."""
    try:
        _ask(kind, _NLM_REQUEST_ACK_CREATE, payload, what)
    except FileExistsError:
        return


def _ask(kind: int, flags: int, payload: bytes, what: str) -> bytes:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload)
        answer = channel.recv(65536)
    if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code:
            raise OSError(code, os.strerror(code), what)
    return answer
