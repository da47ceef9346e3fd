"""Sandboxes made with `privileges="sudo"`: set-user-id programs work, and everything else stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from escape_arena import BIN, Arena, Said, execute

from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Sandbox, SandboxOptions
from sandboxfile.engines.linux.runtimespec import BUILD_CAPABILITIES
from sandboxfile.store.store import Store

pytestmark = [pytest.mark.host, pytest.mark.network]
SANDBOXFILE = """\
name: with-sudo
base: debian:13
apt: [sudo]
run:
  - |
    echo 'app:x:1000:1000::/tmp:/bin/sh' >> /etc/passwd
    echo 'app:*:20000:0:99999:7:::' >> /etc/shadow
    echo 'app ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/app
"""
SUDO = SandboxOptions(privileges="sudo")
_NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}


@pytest.fixture(scope="module")
def sudo_stack(
    shared_home: Path, base_lock: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LayerKey, ...]:
    """A snapshot with Debian's sudo and a user who may use it."""
    directory = tmp_path_factory.mktemp("sudo")
    (directory / "Sandboxfile").write_text(SANDBOXFILE)
    (directory / "sandboxfile.lock").write_text(base_lock)
    argv = [sys.executable, "-m", "sandboxfile", "--home", str(shared_home), "build"]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(Store.open(shared_home).index.find("with-sudo").layers)


def test_sudo_works_where_it_was_asked_for(arena: Arena, sudo_stack: tuple[LayerKey, ...]) -> None:
    async def body(sandbox: Sandbox) -> Said:
        script = (
            "id -u; sudo -n id -u; sudo -n chroot / id -u; sudo -n dpkg --configure -a && echo configured"
        )
        return await execute(sandbox, "sh", "-c", script, user="app")

    said = arena.sandboxed(body, on=sudo_stack, options=SUDO)
    assert said.stdout == "1000\n0\n0\nconfigured\n", said.stderr


def test_sudo_gives_nothing_where_it_was_not(arena: Arena, sudo_stack: tuple[LayerKey, ...]) -> None:
    async def body(sandbox: Sandbox) -> Said:
        return await execute(sandbox, "sudo", "-n", "id", "-u", user="app")

    said = arena.sandboxed(body, on=sudo_stack)
    assert said.stdout == ""
    assert "no new privileges" in said.stderr


def test_with_sudo_the_bounds_are_those_of_build_steps(
    arena: Arena, sudo_stack: tuple[LayerKey, ...]
) -> None:
    async def body(sandbox: Sandbox) -> Said:
        return await execute(sandbox, "sudo", "-n", "cat", "/proc/self/status", user="app")

    status = dict(
        line.split(":\t", 1)
        for line in arena.sandboxed(body, on=sudo_stack, options=SUDO).stdout.splitlines()
        if ":\t" in line
    )
    expected = sum(1 << _NUMBERS[name] for name in BUILD_CAPABILITIES)
    assert int(status["CapBnd"], 16) == expected
    assert int(status["CapEff"], 16) == expected
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


@pytest.mark.parametrize(
    "words",
    [
        "unshare 0x10000000",
        "mount none /mnt tmpfs 0 ",
        "mknod /tmp/n 0x6000 8 0",
        "keyctl",
        "bpf",
        "capset",
        "socket 2 3 1",
        "write_back /proc/sys/kernel/core_pattern",
        "clock_settime",
        "find {sentinel}",
        "tcp 127.0.0.1 {port}",
    ],
)
def test_with_sudo_everything_else_stays(arena: Arena, words: str) -> None:
    probe = arena.words(words.split(" "))

    async def body(sandbox: Sandbox) -> str:
        return (await execute(sandbox, f"{BIN}/probes", *probe)).stdout

    assert arena.sandboxed(body, options=SUDO).startswith("refused")
