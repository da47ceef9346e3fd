"""Which addresses a relayed sandbox may reach: never this machine itself, nor its links."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sandboxfile.engines.linux.netlink import RTN_UNICAST

Address = IPv4Address | IPv6Address

_NEVER_V4 = tuple(
    IPv4Network(each)
    for each in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")
)
# `::/96` holds the unspecified address, the loopback one and the IPv4-compatible ones; the next is the mapped
# ones. Neither names anything on a network.
_NEVER_V6 = tuple(IPv6Network(each) for each in ("::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"))
_LAST_32 = tuple(IPv6Network(each) for each in ("::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
"""RFC 2765, 6052 and 8215: a translator takes the last 32 bits for an IPv4 address."""
_TEREDO = IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_never_reached(address: Address) -> bool:
    """Whether an address is unspecified, of the loopback, of a link, of a group, or everybody's."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in _NEVER_V4)
    return any(address in network for network in _NEVER_V6)


def embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a tunnel or translator on the way could take an IPv6 address for."""
    if isinstance(address, IPv4Address):
        return
    value = int(address)
    if any(address in network for network in _LAST_32) or value >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(value & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        yield IPv4Address(value >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(value >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~value & 0xFFFFFFFF)


def may_be_reached(address: Address, port: int, route_kind: Callable[[str], int | None]) -> bool:
    """Whether a connection may be made. `route_kind` asks this machine's routing table, at that moment: what
    it does not send away from this machine is this machine's own, or goes to more than one."""
    if port == 0 or is_never_reached(address):
        return False
    for inner in embedded(address):
        # No route at all for the IPv4 address is what a machine behind a translator has.
        if is_never_reached(inner) or route_kind(str(inner)) not in (RTN_UNICAST, None):
            return False
    return route_kind(str(address)) == RTN_UNICAST
