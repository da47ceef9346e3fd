"""What a sandbox with network reaches, and what it never does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from linux_bench import Bench, Place

from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.netlink import addresses
from sandboxfile.engines.linux.network import check_mode
from sandboxfile.errors import EngineError, MissingCapability
from sandboxfile.inputs.environment import default_mirrors

REACH = r"""
use Socket qw(:all); $| = 1;
my ($port, @wanted) = @ARGV;
for my $name (@wanted) {
    my ($bad, @found) = getaddrinfo($name, $port, {socktype => SOCK_STREAM, flags => AI_NUMERICHOST});
    next if $bad;
    socket(S, $found[0]{family}, SOCK_STREAM, 0) or next;
    eval {
        local $SIG{ALRM} = sub { die "late\n" };
        alarm 2;
        if (connect(S, $found[0]{addr})) { my $said = <S>; print "$name $said\n" if defined $said }
        alarm 0;
    };
}
"""


@pytest.fixture
def host_server() -> Iterator[int]:
    """A server on every address of this machine that greets each caller."""
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"host")

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.host
@pytest.mark.root
@pytest.mark.parametrize("network", ["none", "full", "relayed"])
def test_this_machine_is_never_reached(bench: Bench, host_server: int, network: str) -> None:
    if network == "relayed":
        relayed = LinuxEngine(bench.engine.layers.home, full_network="relay")
        bench, network = Bench(relayed, bench.base), "full"
    found = addresses()
    links = [name for _, name in socket.if_nameindex() if name != "lo"]
    wanted = [*found, *(f"{each}%{link}" for each in found for link in links if each.startswith("fe80"))]
    wanted += ["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1"]

    async def body() -> str:
        sandbox = await bench.engine.start(bench.base, network=network)
        said = await Place(sandbox).run("perl", "-e", REACH, str(host_server), *wanted)
        assert said.completed.exit_code == 0, said.stderr
        return said.stdout

    assert bench.trial(body) == ""


@pytest.mark.host
@pytest.mark.root
@pytest.mark.network
def test_names_are_resolved_with_network_and_not_without(bench: Bench) -> None:
    host = urlsplit(default_mirrors("trixie")[0].url).hostname
    script = "exit(defined gethostbyname($ARGV[0]) ? 0 : 1)"

    async def body() -> list[int]:
        workspace = await bench.engine.prepare(bench.base)
        place = Place(workspace)
        return [
            (await place.run("perl", "-e", script, str(host), network=network)).completed.exit_code
            for network in ("full", "none")
        ]

    assert bench.trial(body) == [0, 1]


@pytest.mark.host
@pytest.mark.root
def test_nothing_of_the_network_stays_in_a_layer(bench: Bench) -> None:
    async def body() -> bytes:
        workspace = await bench.engine.prepare(bench.base)
        said = await Place(workspace).sh("test -s /etc/resolv.conf", network="full")
        assert said.completed.exit_code == 0
        return await workspace.read("/etc/resolv.conf")

    assert bench.trial(body) == b""


def test_named_hosts_are_refused_not_widened() -> None:
    with pytest.raises(MissingCapability, match="named hosts"):
        check_mode("filtered:a.example,b.example")
    with pytest.raises(EngineError):
        check_mode("some")
