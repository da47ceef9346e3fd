"""The blocking API is the asynchronous one, waited for."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_world import World, make_base

from sandboxfile import Client, blocking
from sandboxfile.blocking import Portal
from sandboxfile.errors import CommandFailed, NoSuchVolume, SandboxGone, UsageError
from sandboxfile.sdk.sandbox import AsyncSandbox

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def client(memory: World) -> Iterator[Client]:
    with Client(home=memory.home, engine="memory") as opened:
        opened._portal.run(lambda: make_base(opened._inner))
        yield opened


def test_a_sandbox_from_plain_code(client: Client) -> None:
    volume = client.volumes.create("data", "10MB", from_="base")
    with client.sandboxes.create(volume, env={"A": "1"}, labels={"k": "v"}) as sandbox:
        assert isinstance(sandbox, blocking.Sandbox)
        assert sandbox.sh("echo $A").text == "1\n"
        assert (sandbox.labels, sandbox.alive) == ({"k": "v"}, True)
        sandbox.env.set("B", "2")
        assert sandbox.env.to_object()["B"] == "2"
        sandbox.fs.write_text_file("/opt/file", "text")
        assert sandbox.fs.read_text_file("/opt/file") == "text"
        assert [entry.name for entry in sandbox.fs.walk("/opt")] == ["file"]
        with sandbox.fork() as fork:
            assert fork.sh("cat /opt/file").text == "text"
        with pytest.raises(CommandFailed):
            sandbox.sh("false")
        assert client.sandboxes.connect(sandbox).id == sandbox.id
        assert [info.id for info in client.sandboxes.list()] == [sandbox.id]
    with pytest.raises(SandboxGone):
        sandbox.sh("true")
    client.volumes.snapshot(volume, "snap")
    assert "snap" in [info.slug for info in client.snapshots.list()]
    client.volumes.delete("data")
    with pytest.raises(NoSuchVolume):
        client.volumes.get("data")


def test_streams_from_plain_code(client: Client) -> None:
    with client.sandboxes.create("base") as sandbox:
        with sandbox.spawn("cat", stdin="piped", stdout="piped") as process:
            process.stdin.write("one\ntwo\n")
            process.stdin.close()
            assert list(process.stdout.lines()) == ["one", "two"]
            assert process.wait().success
        process = sandbox.spawn("echo", "x", stdout="piped")
        assert b"".join(process.stdout) == b"x\n"
        assert process.stderr is None


def test_what_belongs_to_the_event_loop_is_not_there(client: Client) -> None:
    for name in ("engine", "start", "debug", "_session", "nonsense"):
        with pytest.raises(AttributeError):
            getattr(client, name)


def test_several_threads_use_one_client(client: Client) -> None:
    found: list[str] = []

    def work(number: int) -> None:
        with client.sandboxes.create("base") as sandbox:
            found.append(sandbox.sh("echo {}", number).text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"{number}\n" for number in range(8)]


def test_a_closed_client_leaves_no_thread(memory: World) -> None:
    before = threading.active_count()
    with Client(home=memory.home, engine="memory") as client:
        assert threading.active_count() == before + 1
    client.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        client.volumes.list()
    with pytest.raises(UsageError):
        Client(engine="none")
    assert threading.active_count() == before


def test_every_member_of_the_asynchronous_classes_is_there() -> None:
    for kind, outer in blocking._OUTER.items():
        for name, member in inspect.getmembers(kind):
            if name.startswith("_") or name in blocking.ONLY_ASYNC or not inspect.isfunction(member):
                continue
            made = inspect.getattr_static(outer, name)
            assert not inspect.iscoroutinefunction(made)
            assert made.__doc__ == member.__doc__


def test_the_types_are_those_of_the_asynchronous_classes() -> None:
    check = (sys.executable, ROOT / "scripts" / "gen-blocking", "--check")
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_ends_the_work_before_it_reaches_the_caller() -> None:
    """As when Ctrl-C is pressed while a call waits."""
    portal = Portal()
    ended: list[str] = []
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    async def work() -> None:
        try:
            asyncio.get_running_loop().call_soon(signal.pthread_kill, main_thread, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        portal.run(work)
    assert ended == ["cleaned up"]
    portal.close()


def test_a_client_that_is_killed_leaves_its_volume_and_name_free(memory: World) -> None:
    script = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from sdk_world import World
async def main():
    async with World("memory", Path(sys.argv[1])).client() as client:
        await client.volumes.create("shared", from_="base")
        sandbox = await client.sandboxes.create("shared")
        print(sandbox.id, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(memory.home), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()

    async def main() -> None:
        async with memory.client() as client:
            assert [(info.id, info.client) for info in await client.sandboxes.list()] == [(name, process.pid)]
            assert (await client.volumes.get("shared")).sandbox == name
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert await client.sandboxes.list() == ()
            assert list(client.store.sandboxes.iterdir()) == []
            assert (await client.volumes.get("shared")).sandbox is None
            await client.volumes.delete("shared")

    asyncio.run(main())
    process.stdout.close()


def test_members_that_are_told_are_plain_values() -> None:
    assert isinstance(inspect.getattr_static(AsyncSandbox, "url"), property)
