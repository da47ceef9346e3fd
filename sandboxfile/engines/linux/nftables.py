"""Redirecting what leaves a network namespace, by nftables over nfnetlink and without any program.

The messages are those of linux/netfilter/nf_tables.h: a batch with a table, a chain and its rules, which the
kernel takes as a whole or not at all.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable

from sandboxfile.engines.linux.netlink import attribute

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_NLM_REQUEST = 0x1
_NLM_ACK = 0x4
_NLM_CREATE = 0x400
_NLM_APPEND = 0x800
_NLMSG_ERROR = 2
_NESTED = 0x8000
_NFPROTO_INET = 1
_NF_INET_LOCAL_OUT = 3
_PRIORITY_DSTNAT = -100
_REGISTER = 1
_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK_HEADER = 1
_DESTINATION = {socket.AF_INET: 16, socket.AF_INET6: 24}
"""Where the header of a packet has its destination."""
_NFPROTO = {socket.AF_INET: 2, socket.AF_INET6: 10}
_NF_ACCEPT = 1
_DEADLINE = (5, 0)
_TABLE = b"sandboxfile\0"
_CHAIN = b"outgoing\0"


def redirect_outgoing(port: int, spared: Iterable[str]) -> None:
    """Lead every TCP connection and UDP packet that this network namespace sends to a port of its own
    loopback, those to the `spared` networks (`127.0.0.0/8`) excepted. Raises OSError when the kernel has no
    nf_tables, or not the parts of it that this takes."""
    rules = [[*_to_network(network), _accept()] for network in spared]
    protocols = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    rules += [[*_is(_META_L4PROTO, protocol), *_redirect(port)] for protocol in protocols]
    hook = _number(1, _NF_INET_LOCAL_OUT) + _number(2, _PRIORITY_DSTNAT)
    chain = attribute(1, _TABLE) + attribute(3, _CHAIN) + _nested(4, hook) + attribute(7, b"nat\0")
    messages = [(_NEWTABLE, attribute(1, _TABLE)), (_NEWCHAIN, chain)]
    for rule in rules:
        body = attribute(1, _TABLE) + attribute(2, _CHAIN) + _nested(4, b"".join(rule))
        messages.append((_NEWRULE, body))
    _send(messages)


def _send(messages: list[tuple[int, bytes]]) -> None:
    """Have a batch done, and wait for the answer to its last message."""
    parts = [_message(_BATCH_BEGIN, _NLM_REQUEST, 0, b"", _NFNL_SUBSYS_NFTABLES)]
    for number, (kind, body) in enumerate(messages, 1):
        flags = _NLM_REQUEST | _NLM_CREATE | _NLM_APPEND | (_NLM_ACK if number == len(messages) else 0)
        parts.append(_message(_NFNL_SUBSYS_NFTABLES << 8 | kind, flags, number, body))
    last = len(messages)
    parts.append(_message(_BATCH_END, _NLM_REQUEST, last + 1, b"", _NFNL_SUBSYS_NFTABLES))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *_DEADLINE))
        channel.send(b"".join(parts))
        while True:
            data = channel.recv(65536)
            while data:
                length, kind, _, number = struct.unpack_from("=IHHI", data)
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, 16)[0]
                    if code:
                        raise OSError(code, os.strerror(code), "nf_tables")
                    if number == last:
                        return
                data = data[(length + 3) & ~3 :]


def _message(kind: int, flags: int, number: int, body: bytes, resource: int = 0) -> bytes:
    header = struct.pack("=IHHII", 20 + len(body), kind, flags, number, 0)
    return header + struct.pack(">BBH", _NFPROTO_INET if body else 0, 0, resource) + body


def _nested(tag: int, value: bytes) -> bytes:
    return attribute(tag | _NESTED, value)


def _number(tag: int, value: int) -> bytes:
    return attribute(tag, struct.pack(">i", value))


def _expression(name: str, data: bytes) -> bytes:
    """An element of a rule."""
    return _nested(1, attribute(1, name.encode() + b"\0") + _nested(2, data))


def _equals(value: bytes) -> bytes:
    """Go on when the register holds a value."""
    return _expression("cmp", _number(1, _REGISTER) + _number(2, 0) + _nested(3, attribute(1, value)))


def _is(key: int, value: int) -> tuple[bytes, ...]:
    """Go on when something about the packet, of one byte, has a value."""
    return _expression("meta", _number(1, _REGISTER) + _number(2, key)), _equals(bytes([value]))


def _to_network(network: str) -> tuple[bytes, ...]:
    """Go on when the packet's destination is in a network."""
    address, _, bits = network.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    size = len(packed)
    mask = ((1 << size * 8) - (1 << size * 8 - int(bits))).to_bytes(size, "big")
    load = _number(1, _REGISTER) + _number(2, _NETWORK_HEADER)
    load += _number(3, _DESTINATION[family]) + _number(4, size)
    masking = _number(1, _REGISTER) + _number(2, _REGISTER) + _number(3, size)
    masking += _nested(4, attribute(1, mask)) + _nested(5, attribute(1, bytes(size)))
    loaded = (_expression("payload", load), _expression("bitwise", masking), _equals(packed))
    return (*_is(_META_NFPROTO, _NFPROTO[family]), *loaded)


def _accept() -> bytes:
    verdict = _nested(2, _number(1, _NF_ACCEPT))
    return _expression("immediate", _number(1, 0) + _nested(2, verdict))


def _redirect(port: int) -> tuple[bytes, ...]:
    data = _number(1, _REGISTER) + _nested(2, attribute(1, struct.pack(">H", port)))
    return _expression("immediate", data), _expression("redir", _number(1, _REGISTER))
