"""Detached sandboxes: what they outlive, what ends them, who reaches them, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sandboxfile.api import AsyncClient
from sandboxfile.errors import (
    EngineError,
    NoSuchSandbox,
    SandboxElsewhere,
    SandboxGone,
    UsageError,
    VolumeInUse,
)
from sandboxfile.sdk.sandbox import AsyncSandbox
from sandboxfile.store.locks import Locks
from sandboxfile.store.uses import used_by_the_living

pytestmark = [pytest.mark.host, pytest.mark.network]
PATIENCE = 120
SERVER = (
    "perl",
    "-MIO::Socket::INET",
    "-e",
    "$| = 1; print qq(up\\n); $s = IO::Socket::INET->new(LocalPort => 8000, Listen => 9) or die;"
    " while ($c = $s->accept) { print $c qq(HTTP/1.0 200 OK\\r\\n\\r\\nhello); close $c }",
)
MAKER = """
import asyncio, sys
from pathlib import Path
from sandboxfile.api import AsyncClient

async def main():
    client = AsyncClient(home=Path(sys.argv[1]))
    sandbox = await client.sandboxes.create("base", detached=True, env={"MADE": "elsewhere"})
    await sandbox.sh("echo from the maker > /tmp/note")
    print(sandbox.id, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
GUEST = """
import asyncio, sys
from pathlib import Path
from sandboxfile.api import AsyncClient

async def main():
    client = AsyncClient(home=Path(sys.argv[1]))
    sandbox = await client.sandboxes.connect(sys.argv[2])
    await sandbox.spawn("sh", "-c", "echo $$ > /tmp/guest; exec sleep 1000")
    await sandbox.sh("until [ -s /tmp/guest ]; do sleep 0.02; done")
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def home(shared_home: Path, base_project: Path) -> Path:
    return shared_home


def trial(home: Path, body: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a client; detached sandboxes that it leaves are ended."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE), AsyncClient(home=home) as client:
            before = {info.id for info in client.running_sandboxes()}
            try:
                await body(client)
            finally:
                for info in client.running_sandboxes():
                    if info.detached and info.id not in before:
                        await (await client.sandboxes.connect(info.id)).kill()

    asyncio.run(run())


def in_another_process(script: str, *words: str) -> subprocess.Popen[str]:
    """A program that has said one line."""
    return subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True)


async def ended(pid: int) -> None:
    """Wait for the end of a process."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await asyncio.to_thread(select.select, [watched], [], [], PATIENCE)
    finally:
        os.close(watched)


async def told(sandbox: AsyncSandbox) -> None:
    """Wait until a client knows that its sandbox has ended."""
    over = asyncio.Event()
    sandbox._sandbox.when_ended(over.set)
    if sandbox.alive:
        await over.wait()


def test_it_survives_a_killed_maker_and_other_processes_reach_it(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        with in_another_process(MAKER, str(home)) as maker:
            assert maker.stdout is not None
            identifier = (await asyncio.to_thread(maker.stdout.readline)).strip()
            maker.send_signal(signal.SIGKILL)
        sandbox = await client.sandboxes.connect(identifier)
        assert (await sandbox.sh("cat /tmp/note; echo $MADE")).text == "from the maker\nelsewhere\n"
        assert (await client.sandboxes.get(identifier)).detached
        await sandbox.kill()

    trial(home, body)


def test_what_a_killed_client_has_started_ends_and_the_sandbox_goes_on(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True)
        with in_another_process(GUEST, str(home), sandbox.id) as guest:
            assert guest.stdout is not None
            assert await asyncio.to_thread(guest.stdout.readline) == "started\n"
            await sandbox.sh("kill -0 $(cat /tmp/guest)")
            guest.send_signal(signal.SIGKILL)
        await sandbox.sh("while kill -0 $(cat /tmp/guest) 2>/dev/null; do sleep 0.02; done")

    trial(home, body)


def test_two_clients_use_one_sandbox_at_the_same_time(home: Path) -> None:
    async def body(one: AsyncClient) -> None:
        first = await one.sandboxes.create("base", detached=True)
        async with AsyncClient(home=home) as two:
            second = await two.sandboxes.connect(first.id)
            waiting = asyncio.ensure_future(
                first.sh("until [ -e /tmp/go ]; do sleep 0.02; done; cat /tmp/go")
            )
            await second.fs.write_text_file("/tmp/now", "went")
            await second.fs.rename("/tmp/now", "/tmp/go")
            assert (await waiting).text == "went"
            await second.env.set("SHARED", "yes")
            assert await first.env.get("SHARED") == "yes"
            process = await second.spawn("cat", stdin="piped", stdout="piped")
            assert process.stdin is not None
            await process.stdin.write(b"through")
            assert (await process.output()).stdout == b"through"
            async with await second.fork() as fork:
                assert (await fork.sh("cat /tmp/go")).text == "went"
        assert (await first.sh("echo on")).text == "on\n"

    trial(home, body)


def test_its_network_is_connected_as_its_makers_setting_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOXFILE_FULL_NETWORK", "relay")

    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", network="full", detached=True)
        (warning,) = sandbox.warnings
        assert "the setting `full-network`" in warning
        # What only the relay answers for.
        assert (await sandbox.sh("cat /etc/resolv.conf")).text == "nameserver 198.18.0.53\n"
        async with AsyncClient(home=home) as other:
            assert (await other.sandboxes.connect(sandbox.id)).warnings == (warning,)

    trial(home, body)


def test_leaving_its_block_lets_go_and_kill_ends_it_for_all(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        async with await client.sandboxes.create("base", detached=True) as sandbox:
            identifier = sandbox.id
        with pytest.raises(SandboxGone, match="let go"):
            await sandbox.sh("true")
        with pytest.raises(SandboxGone, match="let go"):
            await sandbox.kill()
        again = await client.sandboxes.connect(identifier)
        assert again is await client.sandboxes.connect(identifier)
        async with AsyncClient(home=home) as other:
            theirs = await other.sandboxes.connect(identifier)
            await again.kill()
            await again.kill()
            await told(theirs)
            with pytest.raises(SandboxGone):
                await theirs.sh("true")
        with pytest.raises(NoSuchSandbox):
            await client.sandboxes.connect(identifier)

    trial(home, body)


def test_a_volume_is_with_the_sandbox_until_its_end(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        volume = await client.volumes.create(f"kept-{os.urandom(4).hex()}")
        try:
            sandbox = await client.sandboxes.create("base", detached=True, volumes={"/data": volume})
            await sandbox.sh("echo kept > /data/file")
            await sandbox.close()
            assert (await client.volumes.get(volume)).sandbox == sandbox.id
            with pytest.raises(VolumeInUse, match=sandbox.id):
                await client.sandboxes.create("base", volumes={"/data": volume})
            await (await client.sandboxes.connect(sandbox.id)).kill()
            assert (await client.volumes.get(volume)).sandbox is None
            async with await client.sandboxes.create("base", volumes={"/data": volume}) as after:
                assert (await after.sh("cat /data/file")).text == "kept\n"
        finally:
            await client.volumes.delete(volume)

    trial(home, body)


def test_its_layers_are_kept_from_gc_as_long_as_it_lives(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True)
        layers = set(sandbox._origin.stack)
        await sandbox.close()
        assert layers <= used_by_the_living(Locks(home / "locks")).layers
        await (await client.sandboxes.connect(sandbox.id)).kill()
        assert not layers & used_by_the_living(Locks(home / "locks")).layers

    trial(home, body)


def _helper_of(keeper: int) -> int:
    return int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])


@pytest.mark.parametrize("victim", ["keeper", "helper"])
def test_a_killed_keeper_or_helper_leaves_nothing(home: Path, victim: str) -> None:
    async def body(client: AsyncClient) -> None:
        volume = await client.volumes.create(f"kept-{os.urandom(4).hex()}")
        try:
            sandbox = await client.sandboxes.create("base", detached=True, volumes={"/data": volume})
            keeper, init = sandbox.info.client, sandbox._sandbox.pid
            assert init is not None
            helper = _helper_of(keeper)
            os.kill(keeper if victim == "keeper" else helper, signal.SIGKILL)
            for process in (keeper, helper, init):
                await ended(process)
            await told(sandbox)
            with pytest.raises(SandboxGone):
                await sandbox.sh("true")
            assert (await client.volumes.get(volume)).sandbox is None
            assert sandbox.id not in [info.id for info in client.running_sandboxes()]
            assert not [name for name in os.listdir(home / "sandboxes") if sandbox.id in name]
            async with await client.sandboxes.create("base", volumes={"/data": volume}) as after:
                await after.sh("true")
        finally:
            await client.volumes.delete(volume)

    trial(home, body)


def test_a_keeper_that_is_told_to_stop_cleans_up(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True)
        keeper = sandbox.info.client
        os.kill(keeper, signal.SIGTERM)
        await ended(keeper)
        assert not [name for name in os.listdir(home / "sandboxes") if sandbox.id in name]

    trial(home, body)


def test_it_ends_by_its_time_without_any_client(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True, timeout=1000)
        assert await sandbox.extend_timeout(2000) == sandbox.ends_at
        assert await sandbox.extend_timeout(10) == sandbox.ends_at
        short = await client.sandboxes.create("base", detached=True, timeout=0.5)
        keeper = short.info.client
        await short.close()
        await ended(keeper)
        assert [info.id for info in client.running_sandboxes() if info.id == short.id] == []
        with pytest.raises(UsageError, match="no timeout"):
            await (await client.sandboxes.create("base", detached=True)).extend_timeout(10)

    trial(home, body)


def test_its_url_works_when_the_client_is_gone_and_it_ends_with_its_command(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        async with AsyncClient(home=home) as maker:
            made = await maker.sandboxes.create("base", detached=True, port=8000, command=SERVER)
            identifier, url = made.id, made.url
        assert url is not None
        sandbox = await client.sandboxes.connect(identifier)
        await sandbox.wait_for_port(8000)

        def read() -> bytes:
            with urllib.request.urlopen(url) as answer:
                data: bytes = answer.read()
                return data

        assert await asyncio.to_thread(read) == b"hello"
        assert await sandbox.logs() == b"up\n"
        assert sandbox.url == url
        keeper = sandbox.info.client
        # Its command is the first process after the init.
        await sandbox.sh(
            'for each in /proc/[0-9]*; do [ "$(cat $each/comm)" = perl ] && kill -9 ${each#/proc/}; done',
            check=False,
        )
        await ended(keeper)
        await told(sandbox)
        with pytest.raises(SandboxGone, match="its command ended with exit code 137"):
            await sandbox.sh("true")
        assert await sandbox.logs() == b"up\n"

    trial(home, body)


def test_waiting_for_a_port_that_nobody_listens_on_is_an_error(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        async with await client.sandboxes.create("base") as sandbox:
            with pytest.raises(EngineError, match="nothing listens on port 8000"):
                await sandbox.wait_for_port(8000, timeout=0.05)

    trial(home, body)


def test_errors_reach_the_maker_as_they_are_and_leave_nothing(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        before = set(os.listdir(home / "sandboxes"))
        volume = await client.volumes.create(f"kept-{os.urandom(4).hex()}")
        try:
            # Only the engine, and so the keeper, knows what is wrong with that.
            with pytest.raises(EngineError, match="could not be started: /no/program: not found"):
                await client.sandboxes.create(
                    "base", detached=True, volumes={"/data": volume}, command=["/no/program"]
                )
            with pytest.raises(UsageError, match="detached"):
                await client.sandboxes.create("base", command=["true"])
            assert (await client.volumes.get(volume)).sandbox is None
        finally:
            await client.volumes.delete(volume)
        assert set(os.listdir(home / "sandboxes")) == before

    trial(home, body)


def test_limits_of_output_and_time_hold_from_other_clients(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True, output=1000)
        done = await sandbox.sh("while :; do echo too much; done", check=False)
        assert (done.limit, len(done.stdout)) == ("output", 1000)
        assert (await sandbox.sh("sleep 1000", timeout=0.2, check=False)).limit == "timeout"
        waiting = asyncio.ensure_future(sandbox.sh("echo $$ > /tmp/pid; exec sleep 1000"))
        await sandbox.sh("until [ -s /tmp/pid ]; do sleep 0.02; done")
        waiting.cancel()
        await asyncio.wait([waiting])
        await sandbox.sh("while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.02; done")

    trial(home, body)


def test_another_clients_sandbox_that_is_not_detached_names_its_owner(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        async with AsyncClient(home=home) as other:
            theirs = await other.sandboxes.create("base")
            info = await client.sandboxes.get(theirs.id)
            assert (info.client, info.detached) == (os.getpid(), False)
            with pytest.raises(SandboxElsewhere, match=f"process {os.getpid()}"):
                await client.sandboxes.connect(theirs.id)

    trial(home, body)


def test_nobody_but_the_stores_user_reaches_the_socket(home: Path) -> None:
    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True)
        path = home / "sandboxes" / f"{sandbox.id}.socket"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        # Inside there is no such path, and no such socket.
        seen = await sandbox.sh("cat /proc/net/unix; ls /proc/1/root{} 2>&1 || true", home)
        assert sandbox.id not in seen.text
        if os.geteuid() == 0:
            script = (
                "import os, socket, sys; d = os.open(sys.argv[1], os.O_PATH); os.setresuid(*[65534] * 3);"
                "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
                "s.connect(f'/proc/self/fd/{d}/' + sys.argv[2])"
            )
            argv = [sys.executable, "-c", script, str(path.parent), path.name]
            done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
            assert "PermissionError" in done.stderr

    trial(home, body)


def test_its_keeper_has_nothing_of_the_makers_environment_and_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_MAKER", "secret")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)

    async def body(client: AsyncClient) -> None:
        sandbox = await client.sandboxes.create("base", detached=True, env={"INSIDE": "word"})
        keeper = sandbox.info.client
        assert b"secret" not in Path(f"/proc/{keeper}/environ").read_bytes()
        assert b"word" not in Path(f"/proc/{keeper}/cmdline").read_bytes()
        assert b"word" not in (home / "sandboxes" / f"{sandbox.id}.json").read_bytes()
        open_files = [os.readlink(f"/proc/{keeper}/fd/{name}") for name in os.listdir(f"/proc/{keeper}/fd")]
        assert os.readlink(f"/proc/self/fd/{writing}") not in open_files
        assert os.getsid(keeper) == keeper

    try:
        trial(home, body)
    finally:
        os.close(reading)
        os.close(writing)


async def repeatedly(client: AsyncClient, times: int) -> None:
    for _ in range(times):
        sandbox = await client.sandboxes.create("base", detached=True)
        await sandbox.sh("echo x > /tmp/file")
        await sandbox.kill()


def test_two_hundred_detached_sandboxes_leave_nothing(home: Path) -> None:
    def left() -> tuple[object, ...]:
        mounts = len(Path("/proc/self/mounts").read_text().splitlines())
        names = [sorted(os.listdir(home / name)) for name in ("sandboxes", "workspaces", "locks/uses")]
        return len(os.listdir("/proc/self/fd")), mounts, names, keepers()

    def keepers() -> list[str]:
        found = []
        for name in os.listdir("/proc"):
            try:
                argv = Path(f"/proc/{name}/cmdline").read_bytes()
                parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"detached.keeper" in argv and parent == str(os.getpid()):
                found.append(name)
        return found

    async def run() -> None:
        async with AsyncClient(home=home) as client:
            await repeatedly(client, 1)
            before = left()
            await asyncio.gather(*(repeatedly(client, 50) for _ in range(4)))
            assert left() == before

    asyncio.run(run())
