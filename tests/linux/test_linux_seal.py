"""Layers are made the same: what the rules do to real content."""

from __future__ import annotations

import os

import pytest
from linux_bench import EPOCH, Bench, Place

pytestmark = pytest.mark.host


def test_rules_are_applied_to_what_was_written(bench: Bench) -> None:
    async def body() -> str:
        async def prepare(place: Place) -> None:
            await place.sh(
                """
                echo noise > /var/log/new.log; echo 1234 > /etc/machine-id
                mkdir -p /etc/ssh /var/cache/man; echo key > /etc/ssh/ssh_host_rsa_key; echo x > /etc/passwd-
                echo old > /opt/old
                touch -d '2001-02-03 04:05:06.789' /opt/old; echo new > /opt/new
                perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("/opt/socket"))'
                """
            )

        key, _ = await bench.layer("rules", prepare)
        sandbox = await bench.engine.start((*bench.base, key))
        said = await Place(sandbox).sh(
            """
            stat -c '%s' /var/log/new.log /etc/machine-id
            ls /etc/ssh /opt; ! ls /etc/passwd- 2>/dev/null
            stat -c '%.9Y' /opt/old /opt/new /opt
            """
        )
        assert said.completed.exit_code == 0, said.stderr
        return said.stdout

    lines = bench.trial(body).split()
    assert lines[:2] == ["0", "0"]
    assert lines[2:6] == ["/etc/ssh:", "/opt:", "new", "old"]
    assert lines[6:] == ["981173106.000000000", f"{EPOCH}.000000000", f"{EPOCH}.000000000"]


def test_equal_steps_give_equal_digests_whatever_the_time(bench: Bench) -> None:
    async def body() -> list[str]:
        found = []
        for name in ("first", "second"):

            async def prepare(place: Place) -> None:
                await place.sh(
                    "date +%N > /var/log/x.log; mkdir /opt/d; echo same > /opt/d/f; ln /opt/d/f /opt/d/g"
                )

            _, committed = await bench.layer(name, prepare)
            found.append(committed.diff_id)
        return found

    first, second = bench.trial(body)
    assert first == second


SET_ATTRIBUTE = "perl -e '($f, $n, $v) = qw(/opt/f user.a b); syscall(188, $f, $n, $v, 1, 0) == 0 or die $!'"
CHANGES = (
    "chmod 600 /opt/f",
    "chown 5:6 /opt/f",
    "echo 2 > /opt/f",
    "ln /opt/f /opt/h",
    "ln -s f /opt/l",
    "mkfifo /opt/p",
    "rm /usr/bin/tac",
    "touch -d 2001-01-01 /opt/f",
    SET_ATTRIBUTE,
)


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_in_the_digest(bench: Bench, change: str) -> None:
    if "syscall" in change and os.uname().machine != "x86_64":
        pytest.skip("the number of the call is x86_64's")

    async def body() -> list[str]:
        found = []
        for script in ("true", change):

            async def prepare(place: Place, script: str = script) -> None:
                said = await place.sh(f"echo 1 > /opt/f; {script}")
                assert said.completed.exit_code == 0, said.stderr

            _, committed = await bench.layer(f"{change} {script}", prepare)
            found.append(committed.diff_id)
        return found

    plain, changed = bench.trial(body)
    assert plain != changed


def test_what_no_rule_can_make_equal_is_named(bench: Bench) -> None:
    async def body() -> tuple[str, ...]:
        async def prepare(place: Place) -> None:
            await place.sh("mkdir -p /etc/ssl/certs/java; date > /etc/ssl/certs/java/cacerts")

        _, committed = await bench.layer("java", prepare)
        return committed.unreproducible

    assert bench.trial(body) == ("/etc/ssl/certs/java/cacerts",)
