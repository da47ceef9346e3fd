"""What passes where the tun device cannot be opened, and what never does: real sandboxes on a machine and in
a world that the tests make."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import (
    FAR,
    FAR_V6,
    GATEWAY,
    LONG,
    NAME,
    OWN,
    OWN_V6,
    Told,
    World,
    echo,
    greet,
    listener,
    names,
    serving,
    world,
)

pytestmark = [pytest.mark.host, pytest.mark.root, pytest.mark.network]

# Connects, says what it heard, or how it failed; never waits long.
CONNECT = r"""
use Socket qw(:all); $| = 1;
my ($port, @wanted) = @ARGV;
for my $name (@wanted) {
    my ($bad, @found) = getaddrinfo($name, $port, {socktype => SOCK_STREAM, flags => AI_NUMERICHOST});
    if ($bad) { print "$name bad\n"; next }
    socket(S, $found[0]{family}, SOCK_STREAM, 0) or do { print "$name $!\n"; next };
    eval {
        local $SIG{ALRM} = sub { die "late\n" };
        alarm 20;
        if (connect(S, $found[0]{addr})) {
            $! = 0;
            my $said = <S>;
            print defined $said ? "$name $said" : "$name $!\n";
        } else { print "$name $!\n" }
        alarm 0;
    };
    print "$name late\n" if $@;
}
"""
SEND_BACK = r"""
use Socket qw(:all);
my ($address, $port, $size) = @ARGV;
my ($bad, @found) = getaddrinfo($address, $port, {socktype => SOCK_STREAM, flags => AI_NUMERICHOST});
socket(S, $found[0]{family}, SOCK_STREAM, 0); connect(S, $found[0]{addr}) or die "$!\n";
my $data = "0123456789abcdef" x ($size / 16);
print S $data; S->flush(); shutdown(S, 1);
my $back = do { local $/; <S> };
print $back eq $data ? "same\n" : "different\n";
"""
LOOK_UP = r"""
use Socket qw(:all);
for my $name (@ARGV) {
    my ($bad, @found) = getaddrinfo($name, "", {socktype => SOCK_STREAM, family => AF_INET});
    if ($bad) { print "$name $bad\n"; next }
    my (undef, $first) = unpack_sockaddr_in($found[0]{addr});
    print "$name " . scalar(@found) . " " . inet_ntoa($first) . "\n";
}
"""
SEND_PACKET = r"""
use Socket qw(:all);
socket(S, AF_INET, SOCK_DGRAM, 0); connect(S, pack_sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die "$!\n";
send(S, "x", 0); my $rin = ""; vec($rin, fileno(S), 1) = 1;
select($rin, undef, undef, 20) or do { print "late\n"; exit };
print defined(recv(S, my $data, 10, 0)) ? "heard $data\n" : "$!\n";
"""
PING = r"""
use Socket qw(:all);
socket(S, AF_INET, SOCK_DGRAM, 1) or die "$!\n";
my $echo = pack("CCnnn", 8, 0, 0xf7fe, 0, 1);
print send(S, $echo, 0, pack_sockaddr_in(0, inet_aton($ARGV[0]))) ? "sent\n" : "$!\n";
"""


def perl(script: str, *words: object) -> list[str]:
    return ["perl", "-e", script, *map(str, words)]


class Machine:
    """The machine, and a base that sandboxes on it boot from."""

    def __init__(self, around: World, home: Path, stack: list[str]) -> None:
        self.around = around
        self._request: dict[str, Any] = {"home": str(home), "stack": stack}

    def run(self, *commands: list[str], **options: Any) -> Told:
        """Run commands in one sandbox with network."""
        return self.around.run({**self._request, "commands": commands, **options})

    def answers(self, *commands: list[str], **options: Any) -> list[str]:
        """The same; what each command wrote."""
        told = self.run(*commands, **options)
        assert told.failed == ""
        assert [error for _, _, error in told.said if error] == []
        return [out for _, out, _ in told.said]


@pytest.fixture
def machine(shared_home: Path, linux_base: Any, tmp_path: Path) -> Iterator[Machine]:
    _, stack = linux_base
    with world(tmp_path) as around:
        yield Machine(around, shared_home, [str(key) for key in stack])


def test_a_server_elsewhere_is_reached_and_sees_this_machine(machine: Machine) -> None:
    server = machine.around.out_there(listener)
    with serving(server, greet) as port:
        said = machine.answers(perl(CONNECT, port, FAR, FAR_V6, GATEWAY))
    assert said == [f"{FAR} hello ::ffff:{OWN}\n{FAR_V6} hello {OWN_V6}\n{GATEWAY} hello ::ffff:{OWN}\n"]


def test_this_machine_is_never_reached_through_the_relay(machine: Machine) -> None:
    server = machine.around.on_machine(listener)
    heard: list[str] = []

    def note(connection: socket.socket) -> None:
        heard.append(str(connection.getpeername()))
        greet(connection)

    wanted = ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", OWN, OWN_V6, f"::ffff:{OWN}", "169.254.169.254"]
    wanted += ["::ffff:127.0.0.1", "64:ff9b::127.0.0.1", f"64:ff9b::{OWN}", "2002:7f00:1::1", "198.18.0.53"]
    wanted += ["255.255.255.255", "198.51.100.255", "224.0.0.1", "198.18.0.52", "fe80::1%lo"]
    with serving(server, note) as port:
        (said,) = machine.answers(perl(CONNECT, port, *wanted))
    assert heard == []
    assert [line for line in said.splitlines() if "hello" in line or "late" in line] == []
    assert len(said.splitlines()) == len(wanted)


def test_an_address_that_the_machine_is_given_meanwhile_is_not_reached(machine: Machine) -> None:
    """The routing table is asked when a connection is made, not when the sandbox is."""
    late = "198.51.100.77"
    server = machine.around.on_machine(listener)
    go = machine.around.out_there(listener)
    heard: list[str] = []

    def note(connection: socket.socket) -> None:
        heard.append(str(connection.getpeername()))

    def give(connection: socket.socket) -> None:
        machine.around.give(late)
        greet(connection)

    with serving(server, note) as port, serving(go, give) as signal:
        said = machine.answers(perl(CONNECT, signal, FAR), perl(CONNECT, port, late))
    assert heard == []
    assert said[1] == f"{late} Connection reset by peer\n"


def test_a_refused_connection_shows_as_a_reset_and_an_unused_address_too(machine: Machine) -> None:
    server = machine.around.out_there(listener)
    port = server.getsockname()[1]
    server.close()
    said = machine.answers(perl(CONNECT, port, FAR))
    assert said == [f"{FAR} Connection reset by peer\n"]


def test_each_direction_ends_on_its_own_and_no_byte_is_lost(machine: Machine) -> None:
    server = machine.around.out_there(listener)
    with serving(server, echo) as port:
        said = machine.answers(perl(SEND_BACK, FAR, port, 16 << 20), perl(SEND_BACK, FAR_V6, port, 1600))
    assert said == ["same\n", "same\n"]


def test_names_are_answered_by_the_machines_own_resolver(machine: Machine) -> None:
    with names(machine.around) as asked:
        (said,) = machine.answers(perl(LOOK_UP, NAME, LONG, "no.example"))
    lines = said.splitlines()
    assert lines[0] == f"{NAME} 1 {FAR}"
    assert lines[1].startswith(f"{LONG} ")
    assert lines[1].endswith(FAR)
    assert lines[2].startswith("no.example ")
    assert not lines[2].endswith(FAR)
    assert asked.count(b"\4long\7example\0\0\1\0\1") > 1


def test_packets_and_pings_are_refused_at_once(machine: Machine) -> None:
    said = machine.answers(perl(SEND_PACKET, FAR, 123), perl(SEND_PACKET, FAR, 53), perl(PING, FAR))
    assert said == ["Connection refused\n", "Connection refused\n", "Network is unreachable\n"]


def test_the_sandbox_reaches_its_own_servers_as_ever(machine: Machine) -> None:
    script = r"""
    perl -MIO::Socket -e 'my $s = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => 80, Listen => 5);
        open(F, ">/tmp/ready"); for (1..2) { my $c = $s->accept; print $c "own\n"; close $c }' &
    while [ ! -e /tmp/ready ]; do :; done
    """
    body = perl(CONNECT, 80, "127.0.0.1", "198.18.0.52")
    quoted = " ".join(f"'{word}'" if "'" not in word else word for word in body)
    said = machine.answers(["sh", "-c", f"{script}\n{quoted}"])
    assert said == ["127.0.0.1 own\n198.18.0.52 own\n"]


def test_ipv6_is_unreachable_at_once_where_the_machine_has_no_way_out_by_it(
    shared_home: Path, linux_base: Any, tmp_path: Path
) -> None:
    _, stack = linux_base
    with world(tmp_path, v6=False) as around:
        machine = Machine(around, shared_home, [str(key) for key in stack])
        server = around.out_there(listener)
        with serving(server, greet) as port:
            (said,) = machine.answers(perl(CONNECT, port, FAR_V6, FAR))
    assert said == f"{FAR_V6} Network is unreachable\n{FAR} hello ::ffff:{OWN}\n"


def test_creation_says_that_the_network_is_relayed(machine: Machine) -> None:
    told = machine.run()
    sentence = (
        "the network is relayed, because /dev/net/tun cannot be opened: only TCP and DNS pass, a connection "
        "that is refused shows as a reset, and there is no ping; for all of it: sudo chmod 0666 /dev/net/tun"
    )
    assert list(told.warnings) == [sentence]
    assert list(told.notices) == [sentence]


def test_steps_are_relayed_too_and_say_so_once(machine: Machine) -> None:
    server = machine.around.out_there(listener)
    with serving(server, greet) as port:
        told = machine.run(perl(CONNECT, port, FAR), perl(CONNECT, port, FAR), step=True)
    assert [out for _, out, _ in told.said] == [f"{FAR} hello ::ffff:{OWN}\n"] * 2
    assert len(told.notices) == 1


def test_who_wants_pasta_only_is_refused_with_the_remedy(machine: Machine) -> None:
    told = machine.run(full_network="pasta")
    assert told.failed == (
        "/dev/net/tun cannot be opened, so pasta cannot be used (sudo chmod 0666 /dev/net/tun)"
    )


def test_a_sandbox_with_sudo_or_a_limit_on_processes_is_relayed_the_same(machine: Machine) -> None:
    server = machine.around.out_there(listener)
    with serving(server, greet) as port:
        said = machine.answers(perl(CONNECT, port, FAR, OWN), privileges="sudo", pids=20)
    assert said[0].startswith(f"{FAR} hello ::ffff:{OWN}\n{OWN} ")
    assert said[0].count("hello") == 1
