"""Where a relayed sandbox may connect to."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from sandboxfile.engines.linux.netlink import RTN_UNICAST
from sandboxfile.engines.linux.relay.destination import embedded, may_be_reached

LOCAL, BROADCAST = 2, 3
OWN = "198.51.100.1"


def route_kind(address: str) -> int | None:
    """A machine with one address, a network around it, and a default route."""
    return {OWN: LOCAL, "2001:db8::1": LOCAL, "198.51.100.255": BROADCAST}.get(address, RTN_UNICAST)


def test_what_is_sent_away_from_this_machine_may_be_reached() -> None:
    for address in ("203.0.113.5", "10.1.2.3", "2001:db8::5", "64:ff9b::203.0.113.5", "2002:cb00:7105::1"):
        assert may_be_reached(ip_address(address), 443, route_kind), address


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.1", "169.254.169.254", "224.0.0.251", "239.1.2.3"),
        *("255.255.255.255", "198.51.100.255", OWN),
        *("::", "::1", "fe80::1", "febf::1", "ff02::1", "2001:db8::1", "::127.0.0.1", "::ffff:127.0.0.1"),
        *("::ffff:203.0.113.5", f"::ffff:{OWN}", "::203.0.113.5"),
        *("64:ff9b::127.0.0.1", f"64:ff9b::{OWN}", "64:ff9b::169.254.169.254", "64:ff9b:1::127.0.0.1"),
        *("::ffff:0:127.0.0.1", f"::ffff:0:{OWN}"),
        *("2002:7f00:1::1", "2002:c633:6401::1", "2002:a9fe:a9fe::1", "2002:0:0::1"),
        *("2001:0:7f00:1::1", "2001:0:cb00:7105::80ff:fffe", "2001:db8:7::5efe:7f00:1"),
        *("2001:db8:7::200:5efe:c633:6401",),
    ],
)
def test_this_machine_and_its_links_may_not_be_reached(address: str) -> None:
    assert not may_be_reached(ip_address(address), 443, route_kind)


def test_an_address_that_leads_nowhere_may_not_be_reached() -> None:
    assert not may_be_reached(ip_address("203.0.113.5"), 443, lambda _: None)


def test_port_zero_may_not_be_reached() -> None:
    assert not may_be_reached(ip_address("203.0.113.5"), 0, route_kind)


def test_a_machine_without_ipv4_reaches_it_through_a_translator() -> None:
    def only_v6(address: str) -> int | None:
        return RTN_UNICAST if ":" in address else None

    assert may_be_reached(ip_address("64:ff9b::203.0.113.5"), 443, only_v6)


def test_both_addresses_in_a_teredo_address_are_looked_at() -> None:
    found = list(embedded(ip_address("2001:0:cb00:7105:0:0:3f57:fefa")))
    assert found == [IPv4Address("203.0.113.5"), IPv4Address("192.168.1.5")]
