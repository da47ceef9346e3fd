"""What a sandbox cannot do, tried from the inside as its root."""

from __future__ import annotations

import os

import pytest
from linux_bench import Bench, Place

from sandboxfile.engine.base import Limits

pytestmark = pytest.mark.host

# Numbers of x86_64; each attempt prints the errno, 0 when it succeeded.
CALLS = {
    "unshare(CLONE_NEWUSER)": (272, 0x10000000),
    "setns": (308, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "clone(CLONE_NEWUSER)": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "fsopen": (430, 0, 0),
    "chroot": (161, 0),
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are x86_64's")
def test_dangerous_system_calls_are_refused(bench: Bench) -> None:
    lines = [
        f'print "{name} ", (syscall({", ".join(map(str, call))}) < 0 ? $!+0 : 0), "\\n";'
        for name, call in CALLS.items()
    ]

    async def body() -> str:
        sandbox = await bench.engine.start(bench.base)
        return (await Place(sandbox).run("perl", "-e", "".join(lines))).stdout

    answers = dict(line.rsplit(" ", 1) for line in bench.trial(body).splitlines())
    not_permitted, not_there = "1", "38"
    assert answers == {**dict.fromkeys(CALLS, not_permitted), "clone(CLONE_NEWUSER)": not_there}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of the call is x86_64's")
def test_clone3_is_answered_as_if_the_kernel_had_none(bench: Bench) -> None:
    async def body() -> str:
        sandbox = await bench.engine.start(bench.base)
        return (await Place(sandbox).run("perl", "-e", "syscall(435, 0, 0); print $!+0")).stdout

    assert bench.trial(body) == "38"


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /tmp/sda b 8 0",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo x > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "mount -t tmpfs none /mnt",
        "umount /proc/bus",
        "chown 70000 /tmp",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "hostname mine",
        "nice -n -5 true && test $(nice -n -5 nice) -lt 0",
        "ls /proc/1/root/run/sandboxfile && echo x >> /proc/1/root/run/sandboxfile/init",
    ],
)
def test_attempts_fail(bench: Bench, attempt: str) -> None:
    async def body() -> int:
        sandbox = await bench.engine.start(bench.base)
        return (await Place(sandbox).sh(attempt)).completed.exit_code

    assert bench.trial(body) != 0


def test_a_sandbox_sees_its_own_processes_only(bench: Bench) -> None:
    async def body() -> list[str]:
        sandbox = await bench.engine.start(bench.base)
        said = await Place(sandbox).sh("for p in /proc/[0-9]*; do read name < $p/comm; echo $name; done")
        return said.stdout.split()

    assert bench.trial(body) == ["init", "sh"]


def test_set_user_id_programs_gain_nothing_in_a_sandbox(bench: Bench) -> None:
    async def body() -> str:
        async def prepare(place: Place) -> None:
            await place.sh("cp /usr/bin/id /usr/bin/rootid; chmod 4755 /usr/bin/rootid")

        key, _ = await bench.layer("set-user-id", prepare)
        sandbox = await bench.engine.start((*bench.base, key))
        return (await Place(sandbox).run("rootid", "-u", user="1000")).stdout

    assert bench.trial(body) == "1000\n"


def test_the_number_of_processes_is_limited(bench: Bench) -> None:
    async def body() -> str:
        sandbox = await bench.engine.start(bench.base, limits=Limits(pids=30))
        script = "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo all"
        return (await Place(sandbox).sh(script, timeout=30)).stdout

    assert bench.trial(body) == ""


def test_the_disk_of_a_sandbox_is_limited(bench: Bench) -> None:
    async def body() -> tuple[int, str]:
        sandbox = await bench.engine.start(bench.base, limits=Limits(disk=4_000_000))
        said = await Place(sandbox).sh("head -c 8000000 /dev/zero > /tmp/big")
        return said.completed.exit_code, said.stderr

    code, stderr = bench.trial(body)
    assert code != 0
    assert "No space left" in stderr


@pytest.mark.root
def test_memory_is_limited_and_said_to_have_run_out(bench: Bench) -> None:
    async def body() -> tuple[bool, bool]:
        sandbox = await bench.engine.start(bench.base, limits=Limits(memory=48 << 20))
        place = Place(sandbox)
        much = await place.run("perl", "-e", 'my $x = "a" x 200_000_000;')
        little = await place.run("false")
        return much.completed.out_of_memory, little.completed.out_of_memory

    assert bench.trial(body) == (True, False)


def test_a_sandbox_ends_when_its_time_is_up(bench: Bench) -> None:
    async def body() -> int:
        sandbox = await bench.engine.start(bench.base, limits=Limits(timeout=1.0))
        return (await Place(sandbox).run("sleep", "1000")).completed.exit_code

    assert bench.trial(body) == 137
