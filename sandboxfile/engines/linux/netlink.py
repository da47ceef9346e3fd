"""The few network settings that the helper makes inside a new network namespace, without any program."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_RTM_NEWRULE = 32
_RTM_GETADDR = 22
_NLM_REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400
_NLM_REQUEST_DUMP = 0x1 | 0x300
_FR_ACT_UNREACHABLE = 7
_FRA_DST = 1
_FRA_PRIORITY = 6
_IFA_ADDRESS = 1
_IFA_LOCAL = 2


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
                if kind in (2, 3):
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
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    attributes = struct.pack("=HH", 4 + len(packed), _FRA_DST) + packed
    attributes += struct.pack("=HHI", 8, _FRA_PRIORITY, 1)
    body = struct.pack("=BBBBBBBBI", family, int(bits), 0, 0, 0, 0, 0, _FR_ACT_UNREACHABLE, 0)
    size = 16 + len(body) + len(attributes)
    header = struct.pack("=IHHII", size, _RTM_NEWRULE, _NLM_REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.send(header + body + attributes)
        answer = channel.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code not in (0, -errno.EEXIST):
        raise OSError(-code, os.strerror(-code), network)
